"""A command of several, each a module: its options, its exit status and its errors in one line.

A command's module has `run`, made by `command`. It is imported once that command is called, so that
`--help` and the shell's completion need not wait for what the others import.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from importlib import import_module
from typing import Any, Final

import click

from lookalike.errors import LookalikeError
from lookalike.terminal.output import complain, is_utf8

DONE, FAILED, WRONG = 0, 1, 2
"""Exit statuses: all went well, the work failed, the call was wrong."""

REQUIRED: Final = object()
"""The default of an option that must be given."""

Run = Callable[..., Any]
Decorator = Callable[[Run], Run]

_SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True}
_WRITTEN = ("out", "root", "folder", "features")
"""Options that say where a command writes."""


class Command(click.Command):
    """A command whose work may fail."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments; an error names this command, which click leaves out of some."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; errors of the system, too, are raised as LookalikeError."""
        try:
            return super().invoke(ctx)
        except OSError as error:
            raise LookalikeError(_reason(error, ctx.params)) from error
        except MemoryError as error:
            raise LookalikeError("out of memory") from error


def command(example: str, name: str | None = None) -> Callable[[Run], Command]:
    """A decorator: the function below, whose docstring is the help, is run by a command."""
    epilog = f"\b\nexample: {example}"
    return click.command(name, cls=Command, epilog=epilog, context_settings=_SETTINGS)


def option(
    name: str, kind: Any, default: object, text: str, dest: str | None = None, **others: Any
) -> Decorator:
    """A decorator: an option, such as ``--keep N``, of a click type; `default` may be REQUIRED.

    The function below gets its value as `dest`.
    """
    switch, _, metavar = name.partition(" ")
    others |= {"required": True} if default is REQUIRED else {"default": default}
    names = [switch, dest] if dest else [switch]
    return click.option(*names, type=kind, help=text, metavar=metavar or None, **others)


def flag(name: str, text: str, dest: str | None = None) -> Decorator:
    """A decorator: an option without a value."""
    return click.option(name, *([dest] if dest else []), is_flag=True, help=text)


def together(*each: Decorator) -> Decorator:
    """Several options as one decorator."""

    def add(run: Run) -> Run:
        for option in reversed(each):
            run = option(run)
        return run

    return add


def gathered(name: str, make: Run, *each: Decorator) -> Decorator:
    """Several options as one decorator; the function is given what `make` makes of them, as `name`."""
    only_these: click.Command = click.command()(together(*each)(lambda **_: None))
    names = [option.name for option in only_these.params]

    def decorate(run: Run) -> Run:
        @wraps(run)
        def gathering(**values: Any) -> Any:
            own = {each: values.pop(each) for each in names}
            return run(**values, **{name: make(**own)})

        return together(*each)(gathering)

    return decorate


def at_most_one(*names: str) -> None:
    """Raise UsageError where several of the options are on the command line."""
    context = click.get_current_context()
    source = click.core.ParameterSource.COMMANDLINE
    given = [name for name in names if context.get_parameter_source(name) == source]
    if len(given) > 1:
        one, other = (f"--{name.replace('_', '-')}" for name in given[:2])
        context.fail(f"{other}: not allowed with {one}")


class _Unloaded(click.Command):
    """The command that is `run` of a module, which is imported when it is called."""

    def __init__(self, module: str, name: str, summary: str) -> None:
        super().__init__(name, short_help=summary)
        self._module = module

    def make_context(self, *arguments: Any, **others: Any) -> click.Context:
        """What the command itself makes of its arguments."""
        run: click.Command = import_module(self._module).run
        return run.make_context(*arguments, **others)


class Group(click.Group):
    """Commands, listed in the order given: each is the module or package of its name in `package`."""

    def __init__(self, name: str, text: str, package: str, summaries: Mapping[str, str]) -> None:
        commands = [_Unloaded(f"{package}.{each}", each, text) for each, text in summaries.items()]
        super().__init__(
            name, commands=commands, help=text, no_args_is_help=False, context_settings=_SETTINGS
        )

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return list(self.commands)


def program(group: Group, version: str) -> Group:
    """The group with what only a program has: its version, and its commands completed by a shell."""
    variable = f"_{str(group.name).replace('-', '_').upper()}_COMPLETE"
    group.epilog = f'\b\ncompletion in bash: eval "$({variable}=bash_source {group.name})"'
    return click.version_option(version, message="%(version)s")(group)


def call(program: click.Command, arguments: Sequence[str] | None = None) -> int:
    """Call a program with arguments, those of the process if None; the exit status."""
    name = str(program.name)
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        for text in given:
            if not is_utf8(text):  # libraries take no such paths
                reason = f"an argument is not UTF-8: {text}; rename the file or folder"
                raise click.UsageError(reason)
        return program.main(given, name, standalone_mode=False) or DONE
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else name
        complain(f"{where}: error: {error.format_message()} (see {where} --help)")
        return WRONG
    except LookalikeError as error:
        first, *others = error.lines()
        complain(f"{name}: {first}", *others)
    except OSError as error:
        complain(f"{name}: {_reason(error)}")
    except click.Abort:
        complain(f"{name}: interrupted")
    return FAILED


def _reason(error: OSError, values: Mapping[str, object] | None = None) -> str:
    """An error of the system in one line: the file, else where the command writes, and the reason."""
    written = (values[name] for name in _WRITTEN if values and values.get(name) is not None)
    where = error.filename or next(written, None)
    # Arrow puts more into the reason than the system says.
    reason = os.strerror(error.errno) if error.errno else str(error)
    return f"{where}: {reason}" if where else reason
