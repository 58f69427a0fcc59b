"""Answers requests: the WSGI application and everything that it needs while it serves.

Others use `assembly.make_application`, and `settings` for the environment variables it is made from.
"""
