"""Simulated experiments: records of visitors with known preferences, for trying the report."""
