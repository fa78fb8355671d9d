"""A daemon that follows a file, and is asked what it has seen. Its main loop is `select`.

    $ python select_tail.py --follow /var/log/syslog &
    $ python select_tail.py tail 3             the last three lines that came
    $ python select_tail.py grep usb           those that match
    $ python select_tail.py follow app.log     follow another file instead
    $ python select_tail.py unfollow

A file has no descriptor that says when it grows, so the loop wakes four times a second to look; it
follows no file, it sleeps. Clients are answered at once in any case.
"""

import os
import re
import select
from collections import deque
from dataclasses import dataclass, field
from typing import IO

import shell

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
        if self.file is not None:
            if os.fstat(self.file.fileno()).st_size < self.file.tell():
                self.file.seek(0)  # it was cut off and begun anew
            *lines, self.rest = (self.rest + self.file.read(MOST_BYTES)).split(b"\n")
            self.lines += [line.decode(errors="replace") for line in lines]

    def follow(self, file: IO[bytes] | None) -> None:
        """Forget the lines of the other file, and look at this one, or at none."""
        if self.file is not None:
            self.file.close()
        self.file, self.rest = file, b""
        self.lines.clear()
        self.look()


@dataclass
class Follow:
    """Follow a file from its beginning, and no other; answer how many lines it has so far."""

    path: str

    def process(self, ctx: Followed) -> int:
        try:
            file = open(self.path, "rb", buffering=0)  # noqa: SIM115 (it stays open)
        except OSError as error:
            raise ipcpoll.CommandError("no-file", str(error)) from None
        ctx.follow(file)
        return len(ctx.lines)


@dataclass
class Unfollow:
    """Close the file, and forget its lines."""

    def process(self, ctx: Followed) -> None:
        ctx.follow(None)


@dataclass
class Tail:
    """Answer the last lines, as many as are wanted and there are."""

    lines: int = 10

    def process(self, ctx: Followed) -> list[str]:
        ctx.look()
        return list(ctx.lines)[-self.lines :] if self.lines > 0 else []


@dataclass
class Grep:
    """Answer the lines that a regular expression finds, of those that are kept."""

    pattern: str

    def process(self, ctx: Followed) -> list[str]:
        ctx.look()
        try:
            return [line for line in ctx.lines if re.search(self.pattern, line)]
        except re.error as error:
            raise ipcpoll.CommandError("bad-pattern", str(error)) from None


def serve(address: str, follow: str | None) -> None:
    """Be the daemon, until Ctrl-C."""
    followed = Followed()
    with ipcpoll.Server(address, Follow | Unfollow | Tail | Grep) as server:
        if follow is not None:
            Follow(follow).process(followed)
        print(f"serving at {server.address}", flush=True)
        while True:
            ready, _, _ = select.select([server], [], [], LOOK_SECONDS if followed.file else None)
            if ready:
                server.poll(followed)
            else:
                followed.look()


def check() -> None:
    with shell.Processes(__file__) as tails, open(f"{tails.directory}/log", "w", 1) as log:
        daemon = tails.start("--follow", log.name)
        assert shell.next_line(daemon) == f"serving at {tails.address}\n"
        log.write("one\ntwo\nthr")
        assert tails.run("tail") == "one\ntwo\n"
        log.write("ee\n")
        assert tails.run("tail", "2") == "two\nthree\n"
        assert tails.run("grep", "^t.*e$") == "three\n"
        assert tails.run("unfollow") == ""
        assert tails.run("tail") == ""
        assert tails.run("follow", log.name) == "3\n"


if __name__ == "__main__":
    line = shell.CommandLine(__doc__, serve, address="select-tail", check=check)
    line.add_argument("--follow", metavar="PATH", help="be the daemon, and begin with this file")
    line.add_commands(Follow, Unfollow, Tail, Grep)
    line.main()
