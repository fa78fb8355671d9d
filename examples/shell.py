"""What the examples share: a command line made from command classes, and processes for a check.

A command class becomes a verb. Its docstring is the help, and its fields are the arguments, with
their types and defaults: `Tail(lines: int = 10)` is sent by `tail` and by `tail 3`. The answer is
printed, and before it the pieces as they come. What goes wrong is told in one sentence, and the
exit code is 1.
"""

import argparse
import dataclasses
import functools
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

import ipcpoll

CHECK_SECONDS = 60  # a check that takes longer has failed
Run = Callable[..., object] | None
Show = Callable[[Any], object] | None


class CommandLine(argparse.ArgumentParser):
    """Verbs, each with a function; `run` is called without a verb, `check` with --check."""

    def __init__(
        self,
        description: str | None,
        run: Run = None,
        *,
        address: str = argparse.SUPPRESS,
        check: Callable[[], None] | None = None,
        **options: Any,
    ) -> None:
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(description=description, formatter_class=layout, **options)
        self.verbs: Any = None
        self.set_defaults(run=run)
        # A verb has this option too: it may stand behind the verb.
        self.add_argument("--address", default=address, help="a name, or a path with a slash")
        if check is not None:
            text, test = "test it, with processes of its own", functools.partial(succeed, check)
            self.add_argument("--check", help=text, action="store_const", dest="run", const=test)

    def add_verb(self, name: str, text: str | None, run: Run = None) -> "CommandLine":
        """Return the parser of the verb. Without `run` it needs verbs of its own."""
        if self.verbs is None:
            self.verbs = self.add_subparsers(title="verbs", metavar="VERB")
        verb: CommandLine = self.verbs.add_parser(name, help=text, description=text, run=run)
        return verb

    def add_commands(
        self, *classes: type[Any], show: Show = None, timeout: float | None = 5.0
    ) -> None:
        """Add verbs that send a command; `show` is for those that answer in pieces."""
        for cls in classes:
            run = functools.partial(ask, cls, show, timeout)
            verb = self.add_verb(cls.__name__.lower(), cls.__doc__, run)
            types = get_type_hints(cls)
            for field in dataclasses.fields(cls):
                verb.add_argument(field.name, **how_to_read(field, types[field.name]))

    def main(self, *errors: type[Exception]) -> NoReturn:
        """Call what was asked for, with the arguments by their names, and exit.

        `errors` are told in one sentence, as those of ipcpoll and of the system are.
        """
        failures: tuple[type[Exception], ...] = (ipcpoll.IpcError, OSError, ValueError, *errors)
        arguments = vars(self.parse_args())
        run = arguments.pop("run") or self.error("which verb? --help lists them")
        try:
            run(**arguments)
        except KeyboardInterrupt:
            sys.exit(130)
        except failures as error:
            sys.exit(f"{self.prog}: {error}")
        sys.exit()


def how_to_read(field: "dataclasses.Field[Any]", kind: Any) -> dict[str, Any]:
    """Return how argparse reads a field: a text, a number, or a list of these."""
    several = get_origin(kind) is list
    options = {"type": get_args(kind)[0], "nargs": "+"} if several else {"type": kind}
    if field.name in ("path", "paths"):
        options["type"] = os.path.abspath  # the program may run in another directory
    if field.default is not dataclasses.MISSING:
        options |= {"nargs": "?", "default": field.default, "help": "default: %(default)s"}
    return options


def ask(cls: type[Any], show: Show, timeout: float | None, address: str, **arguments: Any) -> None:
    """Send the command, and print the answer: a list line by line, and nothing for None."""
    fields = {field.name: arguments[field.name] for field in dataclasses.fields(cls)}
    with ipcpoll.Client(address, timeout=timeout) as client:
        command = cls(**fields)
        answer = client.call(command) if show is None else watch(client.stream(command), show)
    for line in answer if isinstance(answer, list) else [answer]:
        say(line)


def watch(stream: ipcpoll.Stream[Any, Any], show: Callable[[Any], object]) -> Any:
    """Show each piece as it comes, tell what was lost, and return the answer."""
    told = 0
    for piece in stream:
        if stream.lost > told:
            print(f"{stream.lost - told} pieces are lost: they came too fast", file=sys.stderr)
            told = stream.lost
        show(piece)
    return stream.result


def say(line: object) -> None:
    """Print it at once, and nothing for None."""
    if line is not None:
        print(line, flush=True)


def succeed(check: Callable[[], None], **_: object) -> None:
    check()
    print("all is well")


@contextmanager
def needs(install: str) -> Generator[None]:
    """Say in one sentence what is missing, when an import inside fails, and what would help."""
    try:
        yield
    except (ImportError, ValueError) as error:  # the second: PyGObject finds no GTK
        sys.exit(f"{os.path.basename(sys.argv[0])}: {error}; {install} would help")


class Processes(ExitStack):
    """Processes of a script, at an address in a new directory. What was started is killed."""

    def __init__(self, script: str) -> None:
        super().__init__()
        self.directory = self.enter_context(tempfile.TemporaryDirectory(prefix="ipcpoll-"))
        self.address = f"{self.directory}/socket"
        self.command = [sys.executable, script, "--address", self.address]
        signal.signal(signal.SIGALRM, lambda *_: sys.exit("the check takes too long"))
        signal.alarm(CHECK_SECONDS)
        self.callback(signal.alarm, 0)

    def start(self, *words: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen([*self.command, *words], stdout=subprocess.PIPE, text=True)
        self.enter_context(process)
        self.callback(process.kill)
        return process

    def run(self, *words: str) -> str:
        """Run one to its end, which must be a good one, and return what it printed."""
        return subprocess.check_output([*self.command, *words], text=True)


def next_line(process: "subprocess.Popen[str]") -> str:
    """Wait for the next line that a process prints. If it failed instead, it has said why."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line and process.wait():
        sys.exit(1)
    return line
