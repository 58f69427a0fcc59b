"""``lookalike plan``: what a catalogue will need of disk, memory and time, before there is any."""

from lookalike.operate.plan.command import run

__all__ = ["run"]
