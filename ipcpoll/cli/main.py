"""The verbs, and the options that each of them has.

A verb is imported when it is asked for, and nothing that it does not use: `--help` lists them from
the table here. To add one: a module in this room with a `command`, made with `verb`, and its line
in `VERBS`.

Options stand anywhere: before the verb, behind it, between its words.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import click

from . import exits
from .durations import TIMEOUT, in_seconds
from .exits import Usage

VERBS: Final = {
    "ls": "the programs of this user, and what state each is in",
    "doctor": "each thing that can be wrong, checked in order, and what to do",
    "dial": "pass bytes between a program and stdin and stdout, for ssh",
}
"""Each verb, which is also the name of its module, and what it does."""


@dataclass
class Settings:
    """What the common options say."""

    json: bool = False
    yes: bool = False
    user: str | None = None
    seconds: float | None = None
    """As given; None: not given."""

    @property
    def timeout(self) -> float:
        """The limit for connecting, reading and the answer, in seconds."""
        return TIMEOUT if self.seconds is None else self.seconds


def settings(context: click.Context) -> Settings:
    """Return what the common options of this run say."""
    return context.ensure_object(Settings)


def _set(
    name: str, read: Callable[[Any], Any] = lambda value: value
) -> Callable[[click.Context, click.Parameter, Any], None]:
    def take(context: click.Context, _: click.Parameter, value: Any) -> None:
        if value is None or value is False:  # it was not given here
            return
        try:
            setattr(settings(context), name, read(value))
        except ValueError as error:
            raise click.BadParameter(f"it {error}") from None

    return take


def common_options() -> list[click.Parameter]:
    """Return the options that the group and each verb have."""

    def option(
        *names: str, sets: str, read: Callable[[Any], Any] = lambda value: value, **how: Any
    ) -> click.Option:
        return click.Option(names, expose_value=False, callback=_set(sets, read), **how)

    return [
        option("-j", "--json", sets="json", is_flag=True, help="Say it in JSON, for programs."),
        option(
            "--timeout",
            sets="seconds",
            read=in_seconds,
            metavar="SECONDS",
            help="Wait so long at most, from connecting to the answer; 5 unless given.",
        ),
        option("--yes", sets="yes", is_flag=True, help="Do what is dangerous, without asking."),
        option(
            "--user",
            sets="user",
            metavar="NAME",
            help="As root: become this user first, and ask his programs.",
        ),
    ]


class Verb(click.Command):
    """A verb: what it does is its function's docstring."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(common_options())

    def invoke(self, ctx: click.Context) -> Any:
        """Become who was asked for, and do it."""
        user = settings(ctx).user
        if user is not None:
            from . import output, users  # noqa: PLC0415

            output.prepare()
            users.become(user)
        return super().invoke(ctx)


def verb(name: str) -> Callable[[Callable[..., Any]], Verb]:
    """Make a verb of a function: ``@verb("ls")``, above the options of its own."""

    def decorate(function: Callable[..., Any]) -> Verb:
        return click.command(name, cls=Verb)(function)

    return decorate


class Verbs(click.Group):
    """The group that imports a verb when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs, in the order of the table."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module and return what it has."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"{__package__}.{cmd_name}")
        command: click.Command | None = getattr(module, "command", None)
        # `dial` reads its words itself, see `__main__`; here it is for who asks what there is.
        return command or click.Command(cmd_name, help=VERBS[cmd_name])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the verb; of one that is none say which is the nearest."""
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            from difflib import get_close_matches  # noqa: PLC0415

            near = get_close_matches(args[0], VERBS, 1)
            hint = f"did you mean {near[0]}?" if near else "ipcpoll --help lists them"
            raise Usage(f"there is no verb {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of verbs without importing one."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


def release(package: str) -> str:
    """Return which release of a package is installed."""
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    try:
        return version(package)
    except PackageNotFoundError:  # a checkout that was never installed
        return "(not installed)"


def _version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        print(f"ipcpoll {release('ipcpoll')}")
        context.exit()


GROUP: Final = Verbs(
    "ipcpoll",
    help="Ask programs that run: what they can do, and to do it.",
    subcommand_metavar="VERB …",
    params=[
        *common_options(),
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_version,
            help="Say which release this is.",
        ),
    ],
)


def main(arguments: Sequence[str]) -> int:
    """Run the command with these arguments, and return its exit code."""
    return exits.run(lambda: _invoke(list(arguments)))


def _invoke(arguments: list[str]) -> object:
    # Not `GROUP.main`: it has its own ideas of a closed pipe and of Ctrl-C.
    try:
        with GROUP.make_context("ipcpoll", arguments, obj=Settings()) as context:
            return GROUP.invoke(context)
    except click.exceptions.Exit as ended:  # after --help and --version
        return ended.exit_code
