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
class Followed:
    """The file that the daemon follows, and the last lines of it."""

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
    """Follow a file from its beginning, and no other; answer how many lines it has so far."""

    path: str

    def process(self, ctx: Followed) -> int:
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

    def process(self, ctx: Followed) -> None:
        ctx.leave()


@dataclass
class Tail:
    """Answer the last lines, as many as are wanted and there are."""

    lines: int

    def process(self, ctx: Followed) -> list[str]:
        ctx.look()
        return list(ctx.lines)[-self.lines :] if self.lines > 0 else []


@dataclass
class Grep:
    """Answer the lines that a regular expression finds, of those that are kept."""

    pattern: str

    def process(self, ctx: Followed) -> list[str]:
        try:
            found = re.compile(self.pattern)
        except re.error as error:
            raise ipcpoll.CommandError("bad-pattern", str(error)) from None
        ctx.look()
        return [line for line in ctx.lines if found.search(line)]


def serve(address: str, path: str | None) -> None:
    """Be the daemon, until Ctrl-C."""
    followed = Followed()
    with ipcpoll.Server(address, Follow | Unfollow | Tail | Grep) as server:
        if path is not None:
            Follow(path).process(followed)
        print(f"serving at {server.address}", flush=True)
        while True:
            ready, _, _ = select.select([server], [], [], LOOK_SECONDS if followed.file else None)
            if ready:
                server.poll(followed)
            else:
                followed.look()


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
                assert run("tail", "9") == "one\ntwo\n"
                log.write("ee\n")
                assert run("tail", "2") == "two\nthree\n"
                assert run("grep", "^t.*e$") == "three\n"
                assert run("unfollow") == "None\n"
                assert run("tail", "9") == "\n"
                assert run("follow", path) == "3\n"
            finally:
                daemon.terminate()
    print("select_tail.py: checked")


def main() -> int:
    parser = argparse.ArgumentParser(description="Follow a file, and answer what came.")
    parser.add_argument("--address", default="select-tail", help="a name, or a path with a slash")
    parser.add_argument("--follow", metavar="PATH", help="be the daemon, and begin with this file")
    parser.add_argument("--check", action="store_true", help="start a daemon, drive it, and end it")
    verbs = parser.add_subparsers(metavar="follow PATH | unfollow | tail LINES | grep PATTERN")
    for cls in (Follow, Unfollow, Tail, Grep):
        verb = verbs.add_parser(cls.__name__.lower(), help=cls.__doc__, description=cls.__doc__)
        verb.set_defaults(command=cls)
        for name, kind in cls.__annotations__.items():
            read = os.path.abspath if name == "path" else kind  # the daemon may be elsewhere
            verb.add_argument("words", nargs=1, type=read, metavar=name)
    arguments = parser.parse_args()
    try:
        if arguments.check:
            check()
        elif "command" in arguments:
            command = arguments.command(*getattr(arguments, "words", []))
            answer = ipcpoll.send(command, arguments.address)
            print(*(answer if isinstance(answer, list) else [answer]), sep="\n")
        else:
            serve(arguments.address, arguments.follow)
    except KeyboardInterrupt:
        return 130
    except (ipcpoll.IpcError, OSError) as error:
        print(f"select_tail.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
