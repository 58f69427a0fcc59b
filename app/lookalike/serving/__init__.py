"""A request and its answer: the WSGI application, and what it needs while it serves.

Others use `assembly.make_application`, and `settings` for the environment variables it is made from.
"""
