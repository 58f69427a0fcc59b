"""Extraction: a catalogue's photos through a network into a feature store.

Others use `pipeline.extract` with an engine, local or on Ray.
"""
