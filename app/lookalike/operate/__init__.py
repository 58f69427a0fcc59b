"""What a person does to the service: the command ``lookalike``, a module a command.

Nothing here runs in a request. Others use `cli.main`; the demo also starts its servers from here.
"""
