"""Behaviour: ratings become, for each product, what those who rated it rated too.

Others use `build.add_behaviour`.
"""
