"""The base of the errors that a user can do something about."""


class LookalikeError(Exception):
    """Work that failed; the text says why and what to do. Commands print it and exit with status 1."""

    def lines(self) -> list[str]:
        """The lines to print, the first after the command's name."""
        return [str(self)]
