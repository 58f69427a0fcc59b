"""Lookalike's builder: product photos to features, features to releases."""
