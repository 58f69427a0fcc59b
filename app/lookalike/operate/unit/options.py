"""The option of both commands."""

from lookalike.operate.unit.control import DEFAULT_SOCKET
from lookalike.terminal.command import option

control = option("--control SOCKET", str, str(DEFAULT_SOCKET), "Unit's control socket")
