"""The command ``lookalike``, which people run on a serving host; a module a command.

Nothing here runs in a request. Others use `cli.main`; the demo also starts its servers from here.
"""
