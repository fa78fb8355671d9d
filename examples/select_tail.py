"""A daemon that follows a file, and is asked what it has seen. Its main loop is `select`.

    $ python select_tail.py --follow /var/log/syslog &
    $ python select_tail.py tail 3             the last three lines that came
    $ python select_tail.py grep usb           those that match
    $ python select_tail.py open app.log       follow another file instead
    $ python select_tail.py follow             the lines as they come, until Ctrl-C
    $ python select_tail.py close

A file has no descriptor that says when it grows, so the loop wakes four times a second to look; it
follows no file, it sleeps. Clients are answered at once in any case.
"""

import os
import re
import select
import signal
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

    def __post_init__(self) -> None:
        # What one look finds is kept for those that follow, unless its lines are very short.
        self.topic = ipcpoll.Topic[str | None](state=self.last_line, depth=MOST_LINES)

    def last_line(self) -> str | None:
        return self.lines[-1] if self.lines else None

    def look(self) -> None:
        """Read what has come; a line counts when it is complete."""
        if self.file is not None:
            if os.fstat(self.file.fileno()).st_size < self.file.tell():
                self.file.seek(0)  # it was cut off and begun anew
            *lines, self.rest = (self.rest + self.file.read(MOST_BYTES)).split(b"\n")
            for line in lines:
                self.lines.append(line.decode(errors="replace"))
                self.topic.publish(self.lines[-1])

    def open(self, file: IO[bytes] | None) -> None:
        """Forget the lines of the other file, and look at this one, or at none."""
        if self.file is not None:
            self.file.close()
        self.file, self.rest = file, b""
        self.lines.clear()
        self.look()


@dataclass
class Open:
    """Follow a file from its beginning, and no other; answer how many lines it has so far."""

    path: str

    def process(self, ctx: Followed) -> int:
        try:
            file = open(self.path, "rb", buffering=0)  # noqa: SIM115 (it stays open)
        except OSError as error:
            raise ipcpoll.CommandError("no-file", str(error)) from None
        ctx.open(file)
        return len(ctx.lines)


@dataclass
class Close:
    """Close the file, and forget its lines."""

    def process(self, ctx: Followed) -> None:
        ctx.open(None)


@dataclass
class Follow:
    """Give the last line, if there is one, and those that come."""

    def process(self, ctx: Followed) -> ipcpoll.Subscription[str | None]:
        return ctx.topic.subscribe()


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
    with ipcpoll.Server(address, Open | Close | Tail | Grep | Follow) as server:
        if follow is not None:
            Open(follow).process(followed)
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
        follower = tails.start("follow")
        assert shell.next_line(follower) == "three\n"
        log.write("four\nfive\n")
        assert [shell.next_line(follower), shell.next_line(follower)] == ["four\n", "five\n"]
        follower.send_signal(signal.SIGINT)
        assert follower.wait() == 130
        assert tails.run("close") == ""
        assert tails.run("tail") == ""
        assert tails.run("open", log.name) == "5\n"


if __name__ == "__main__":
    line = shell.CommandLine(__doc__, serve, address="select-tail", check=check)
    line.add_argument("--follow", metavar="PATH", help="be the daemon, and begin with this file")
    line.add_commands(Open, Close, Tail, Grep)
    line.add_commands(Follow, show=shell.say, timeout=None)
    line.main()
