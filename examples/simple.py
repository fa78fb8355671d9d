"""A program with a loop of its own, its clients, and a demonstration of both.

`simple.py server` holds a stack of numbers and polls once a second. `simple.py client` asks it,
from another process. `simple.py demo` starts a server, drives it and measures it.
"""

import argparse
import dataclasses
import math
import select
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import IO, Any, NoReturn

import ipcpoll

EXIT_CODES = """\
exit codes:
  0    done
  1    the answer is an error, or the server could not start, or the demo failed
  2    wrong arguments; nothing was sent
  3    nobody is there, or the call was not answered in time
  130  ended by Ctrl-C (SIGINT); 143: by SIGTERM. A server removes its socket first.
"""


# ---------------------------------------------------------------------------------------------
# The commands, which server and client share. The context is the server's stack.


@dataclass
class Print:
    """Print a text on the server's standard output."""

    text: str

    def process(self, ctx: list[int]) -> None:
        say(f"Print: {self.text}")


@dataclass
class Add:
    """Add two numbers; the answer is the sum."""

    a: int
    b: int

    def process(self, ctx: list[int]) -> int:
        total = self.a + self.b
        say(f"Add: {self.a} + {self.b} = {total}")
        return total


@dataclass
class Push:
    """Push a number on the server's stack; the answer is how many it holds then."""

    x: int

    def process(self, ctx: list[int]) -> int:
        ctx.append(self.x)
        say(f"Push: the stack is {ctx}")
        return len(ctx)


def say(text: str) -> None:
    """Print a line at once, into a pipe too."""
    print(text, flush=True)


# ---------------------------------------------------------------------------------------------
# The server and the client


def run_server(arguments: argparse.Namespace) -> NoReturn:
    """Serve until a signal comes; the `with` statement removes the socket."""
    stack: list[int] = []
    with ipcpoll.Server(arguments.address, Print | Add | Push) as server:
        if arguments.watch:
            say(f"serving at {server.address}, polled when its descriptor is readable")
            while True:
                select.select([server], [], [])
                server.poll(stack)
        say(f"serving at {server.address}, polled every {arguments.interval:g} s")
        while True:
            server.poll(stack)
            time.sleep(arguments.interval)  # here the program does its own work


def run_client(arguments: argparse.Namespace) -> int:
    """Send one command and print the answer."""
    cls: type[Print | Add | Push] = arguments.command
    command = cls(*(getattr(arguments, field.name) for field in dataclasses.fields(cls)))
    say(str(ipcpoll.send(command, arguments.address, timeout=arguments.timeout)))
    return 0


# ---------------------------------------------------------------------------------------------
# The demonstration


def run_demo(_: argparse.Namespace) -> int:
    """Show a server that is polled once a second, then one that is watched."""
    with tempfile.TemporaryDirectory(prefix="ipcpoll-") as directory:
        address = f"{directory}/demo.sock"
        say(f"Each process below is given --address {address} as well.\n")
        with running_server(address, "--interval 1") as output:
            exchange(address, output, "print", "hello from another process")
            exchange(address, output, "add", "2", "3")
            exchange(address, output, "push", "7")
            polled = median_latency(address)
        say("")
        with running_server(address, "--watch") as output:
            exchange(address, output, "push", "8")
            watched = median_latency(address)
    say("\nOne call, from connecting to the answer (median of 3, one right after the other):")
    say(f"  polled once a second       {polled * 1000:9.2f} ms")
    say(f"  watched by its descriptor  {watched * 1000:9.2f} ms")
    return 0


@contextmanager
def running_server(address: str, option: str) -> Generator[IO[str]]:
    """Start a server process, give what it prints, and end it."""
    say(f"$ simple.py server {option}")
    command = [sys.executable, __file__, "server", "--address", address, *option.split()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            first_line = process.stdout.readline()
            if not first_line:
                raise ChildProcessError("the server did not start")
            say(f"  server | {first_line.rstrip()}")
            yield process.stdout
        finally:
            process.terminate()


def exchange(address: str, output: IO[str], *words: str) -> None:
    """Run one client process; show what the server and the client print."""
    say(f"$ simple.py client {shlex.join(words)}")
    command = [sys.executable, __file__, "client", "--address", address, *words]
    client = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    say(f"  server | {output.readline().rstrip()}")
    say(f"  client | {client.stdout.rstrip()}")


def median_latency(address: str) -> float:
    """Return the seconds that a call takes."""
    latencies: list[float] = []
    for _ in range(3):
        began = time.perf_counter()
        ipcpoll.send(Add(2, 3), address)
        latencies.append(time.perf_counter() - began)
    return statistics.median(latencies)


# ---------------------------------------------------------------------------------------------
# The command line


class Parser(argparse.ArgumentParser):
    """Tells the exit codes at each level."""

    def __init__(self, **options: Any) -> None:
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(epilog=EXIT_CODES, formatter_class=layout, **options)


def add_option(parser: Any, name: str, **options: Any) -> None:
    parser.add_argument(name, help=f"{options.pop('help')} (default: %(default)s)", **options)


def seconds(text: str) -> float:
    """Return a time that can be waited for; argparse names this function in its message."""
    if not 0 <= float(text) < math.inf:
        raise ValueError
    return float(text)


def make_parser() -> Parser:
    parser = Parser(description=__doc__)
    roles = parser.add_subparsers(dest="role", required=True, metavar="server | client | demo")
    where = {"default": "ipcpoll-simple", "help": "a name, or a path with a slash"}

    text = "Hold a stack of numbers and serve commands, until Ctrl-C or SIGTERM."
    server = roles.add_parser("server", help=text, description=text)
    add_option(server, "--address", **where)
    way = server.add_mutually_exclusive_group()
    add_option(way, "--interval", type=seconds, default=1.0, help="seconds between two polls")
    way.add_argument("--watch", action="store_true", help="poll when the descriptor is readable")

    text = "Send one command and print its answer."
    client = roles.add_parser("client", help=text, description=text)
    add_option(client, "--address", **where)
    add_option(client, "--timeout", type=seconds, default=5.0, help="seconds for the whole call")
    commands = client.add_subparsers(required=True, metavar="print | add | push")
    for cls in (Print, Add, Push):
        command = commands.add_parser(
            cls.__name__.lower(), help=cls.__doc__, description=cls.__doc__
        )
        command.set_defaults(command=cls)
        for field in dataclasses.fields(cls):
            command.add_argument(field.name, type=field.type, metavar=field.name.upper())

    text = "Start servers and clients, show what they say, and measure them."
    roles.add_parser("demo", help=text, description=text)
    return parser


def main() -> int:
    arguments = make_parser().parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    roles = {"server": run_server, "client": run_client, "demo": run_demo}
    try:
        return roles[arguments.role](arguments)
    except (ipcpoll.CommandError, subprocess.CalledProcessError) as error:
        return fail(1, error)
    except ValueError as error:
        return fail(2, error)
    except OSError as error:  # for a client: NotRunning, NotAnswered and their like
        return fail(3 if arguments.role == "client" else 1, error)


def end(number: int, _: FrameType | None) -> NoReturn:
    """Leave through every `with` and `finally`."""
    sys.exit(128 + number)


def fail(code: int, error: Exception) -> int:
    print(f"simple.py: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
