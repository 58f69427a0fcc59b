"""Extraction: a network turns a catalogue's photos into a feature store.

Others use `pipeline.extract` with an engine, local or on Ray.
"""
