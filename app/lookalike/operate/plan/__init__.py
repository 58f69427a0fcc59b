"""``lookalike plan``: how much disk, memory and time a catalogue will need."""

from lookalike.operate.plan.command import run

__all__ = ["run"]
