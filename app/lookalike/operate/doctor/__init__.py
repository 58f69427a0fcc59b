"""``lookalike doctor``: what is wrong with this host, and what to do about it.

There is a module for each thing that is checked; `examine` runs the checks.
"""

from lookalike.operate.doctor.examine import run

__all__ = ["run"]
