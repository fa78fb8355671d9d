"""A daemon that follows a file, and is asked what it has seen. Its main loop is `select`.

    $ select_tail.py --follow /var/log/syslog &
    $ select_tail.py tail 3             the last three lines that came
    $ select_tail.py grep usb           those that match
    $ select_tail.py follow app.log     follow another file instead
    $ select_tail.py unfollow

A file has no descriptor that says when it grows, so the loop wakes four times a second to look; it
follows no file, it sleeps. Clients are answered at once in any case.
"""

import argparse
import os
import re
import select
import subprocess
import sys
import tempfile
from collections import deque
from dataclasses import dataclass, field
from typing import IO

import ipcpoll

LOOK_SECONDS = 0.25
MOST_LINES = 1000  # kept, of the last ones
MOST_BYTES = 65536  # read at one look, so that clients need not wait for a big file


@dataclass
class Tail:
    """The daemon: the file that it follows, and the last lines of it."""

    file: IO[bytes] | None = None
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=MOST_LINES))
    rest: bytes = b""

    def look(self) -> None:
        """Read what has come; a line counts when it is complete."""
        if self.file is None:
            return
        if os.fstat(self.file.fileno()).st_size < self.file.tell():
            self.file.seek(0)  # it was cut off and begun anew
        *lines, self.rest = (self.rest + self.file.read(MOST_BYTES)).split(b"\n")
        self.lines += [line.decode(errors="replace") for line in lines]

    def leave(self) -> None:
        if self.file is not None:
            self.file.close()
        self.file, self.rest = None, b""
        self.lines.clear()


@dataclass
class Follow:
    """Follow a file from its beginning, instead of another."""

    path: str

    def process(self, ctx: Tail) -> int:
        try:
            file = open(self.path, "rb", buffering=0)  # noqa: SIM115 (it stays open)
        except OSError as error:
            raise ipcpoll.CommandError("no-file", str(error)) from None
        ctx.leave()
        ctx.file = file
        ctx.look()
        return len(ctx.lines)


@dataclass
class Unfollow:
    """Close the file, and forget its lines."""

    def process(self, ctx: Tail) -> None:
        ctx.leave()


@dataclass
class Last:
    """Answer the last lines, as many as are wanted and there are."""

    lines: int = 10

    def process(self, ctx: Tail) -> list[str]:
        ctx.look()
        return list(ctx.lines)[-self.lines :] if self.lines > 0 else []


@dataclass
class Grep:
    """Answer the lines that a regular expression finds, of those that are kept."""

    pattern: str

    def process(self, ctx: Tail) -> list[str]:
        try:
            found = re.compile(self.pattern)
        except re.error as error:
            raise ipcpoll.CommandError("bad-pattern", str(error)) from None
        ctx.look()
        return [line for line in ctx.lines if found.search(line)]


def serve(address: str, path: str | None) -> None:
    """Be the daemon, until Ctrl-C."""
    tail = Tail()
    with ipcpoll.Server(address, Follow | Unfollow | Last | Grep) as server:
        if path is not None:
            Follow(path).process(tail)
        print(f"serving at {server.address}", flush=True)
        while True:
            ready, _, _ = select.select([server], [], [], LOOK_SECONDS if tail.file else None)
            if ready:
                server.poll(tail)
            else:
                tail.look()


def ask(address: str, verb: str, argument: str | None) -> None:
    """Be a client: one command, its answer on standard output."""
    match verb, argument:
        case "follow", str(path):
            lines = ipcpoll.send(Follow(os.path.abspath(path)), address)
            print(f"{lines} lines so far")
        case "unfollow", None:
            ipcpoll.send(Unfollow(), address)
        case "tail", _:
            show(ipcpoll.send(Last(int(argument or 10)), address))
        case "grep", str(pattern):
            show(ipcpoll.send(Grep(pattern), address))
        case _:
            raise ValueError(f"{verb} takes {'no' if argument else 'an'} argument")


def show(lines: list[str]) -> None:
    for line in lines:
        print(line)


def check() -> None:
    """Drive a daemon as a shell would: real processes, each answer looked at."""
    with tempfile.TemporaryDirectory(prefix="ipcpoll-") as directory:
        address, path = f"{directory}/tail.sock", f"{directory}/app.log"
        program = [sys.executable, __file__, "--address", address]

        def run(*words: str) -> str:
            return subprocess.run([*program, *words], stdout=-1, text=True, check=True).stdout

        with (
            open(path, "w", buffering=1) as log,
            subprocess.Popen([*program, "--follow", path], stdout=subprocess.PIPE) as daemon,
        ):
            try:
                assert daemon.stdout is not None
                assert daemon.stdout.readline().startswith(b"serving at ")
                log.write("one\ntwo\nthr")
                assert run("tail") == "one\ntwo\n"
                log.write("ee\n")
                assert run("tail", "2") == "two\nthree\n"
                assert run("grep", "^t.*e$") == "three\n"
                assert run("unfollow") == ""
                assert run("tail") == ""
                assert run("follow", path) == "3 lines so far\n"
            finally:
                daemon.terminate()
    print("select_tail.py: checked")


def main() -> int:
    parser = argparse.ArgumentParser(description="Follow a file, and answer what came.")
    parser.add_argument("--address", default="select-tail", help="a name, or a path with a slash")
    parser.add_argument("--follow", metavar="PATH", help="be the daemon, and begin with this file")
    parser.add_argument("--check", action="store_true", help="start a daemon, drive it, and end it")
    parser.add_argument(
        "verb",
        nargs="?",
        choices=["follow", "unfollow", "tail", "grep"],
        help="none: be the daemon",
    )
    parser.add_argument("argument", nargs="?", help="a path, a number of lines, or a pattern")
    arguments = parser.parse_args()
    try:
        if arguments.check:
            check()
        elif arguments.verb:
            ask(arguments.address, arguments.verb, arguments.argument)
        else:
            serve(arguments.address, arguments.follow)
    except KeyboardInterrupt:
        return 130
    except (ipcpoll.IpcError, OSError, ValueError) as error:
        print(f"select_tail.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
