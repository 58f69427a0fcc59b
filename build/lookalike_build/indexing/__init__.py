"""Indexing: features become a category's exact table, its projection and its Annoy index.

Others use `build.index` for a whole release and `live.LiveCategory` for one category that changes.
"""
