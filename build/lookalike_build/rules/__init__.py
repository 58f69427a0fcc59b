"""Rules: which products a shop pins to the top of answers, or bans from them, as part of a release.

Others use `files.read_rules` and `build.set_rules`.
"""
