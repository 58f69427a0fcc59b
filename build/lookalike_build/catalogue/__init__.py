"""The catalogue: which products there are, read from CSV, JSON Lines, Parquet or SQL.

Others use `reader.read_catalogue`.
"""
