"""The command ``lookalike-build``, also as ``python -m lookalike_build``."""

from lookalike.terminal.install import install
from lookalike.terminal.output import complain


def main() -> int:
    """Run the command; say what to install where only the app is installed."""
    try:
        from lookalike_build.commands.cli import main as command

        return command()
    except ModuleNotFoundError as error:
        complain(f"lookalike-build: {error.name} is missing; {install('build')}")
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
