"""Tables: rows of named columns in CSV, JSON Lines, Parquet or the result of an SQL query.

The wing knows formats, types and where a problem stands, and nothing of what the rows mean.
Others use `reader.open_table`, `columns` and `error.TableError`.
"""
