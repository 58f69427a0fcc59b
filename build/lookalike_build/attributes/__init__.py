"""Attributes: what a table says of products besides their photos becomes part of a release.

Others use `build.set_attributes`.
"""
