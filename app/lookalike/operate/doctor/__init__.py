"""``lookalike doctor``: what is wrong with this host, and what to do about it.

The checks stand by what they look at; `examine` makes them.
"""

from lookalike.operate.doctor.command import run

__all__ = ["run"]
