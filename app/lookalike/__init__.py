"""Lookalike's app: what runs inside NGINX Unit. Needs annoy, numpy and orjson only."""

__version__ = "0.1.0"
