"""The command ``lookalike-build``, also as ``python -m lookalike_build``."""

from lookalike.terminal.output import complain


def main() -> int:
    """Run the command; say what to install where only the app is installed."""
    try:
        from lookalike_build.commands.cli import main as command
    except ModuleNotFoundError as error:
        message = f"{error.name} is missing; run: pip install 'lookalike[build]'"
        complain(f"lookalike-build: {message}")
        return 1
    return command()


if __name__ == "__main__":
    raise SystemExit(main())
