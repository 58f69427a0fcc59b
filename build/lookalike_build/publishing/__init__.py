"""Publishing: categories become a release, linked where nothing changed, checked and named.

Others use `staging.Staging` and `category.CategoryWriter`.
"""
