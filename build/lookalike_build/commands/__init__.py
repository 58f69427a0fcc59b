"""The command ``lookalike-build``, a module a command: its options and what it runs."""
