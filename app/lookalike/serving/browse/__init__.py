"""The page ``/browse``, for people: products and their neighbours, in one release or in two."""
