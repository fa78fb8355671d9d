"""One run of one scenario under faults: a server's world, and what must hold when it is over.

A scenario acts while faults are on; what it calls of the library goes through a `Run`, which knows
what may come out. Then the faults end, and `Run.look_back` checks the invariants of the campaign:

* `poll` raised nothing, a constructor or a client only what its documentation says;
* each answer belongs to a call, in order, none comes twice, no command has run twice; a call
  without an answer has lost its connection, and there was a word about that: in the log, or to the
  client, or it was the client's own system call that failed;
* a new client is served, and after that the descriptor is silent;
* every descriptor is free again, nothing is left beside the socket, another file is untouched;
* few lines in the log, none twice, no ResourceWarning, nothing unraisable.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

from faulty_calls import Faults
from harness import COMMANDS as BASIC
from harness import Host, Peer, call, readable
from interrupting import LATE_COMMANDS

from ipcpoll import IpcError, Limits, Server
from ipcpoll._system.log import way_of

COMMANDS = [*BASIC, *LATE_COMMANDS]
LIMITS = Limits(accept_pause_seconds=0.002, max_clients=6)
PATIENCE = 5.0
MOST_LINES = 12
"""Log lines of one run: one for each kind of mishap, and there are not so many kinds at once."""

FOREIGN = "foreign"
CLOSES = ("close", "unlink", "stat", "fstat", "lstat", "fcntl", "flock", "pread")
"""What has to work for what was made to be removed at once; else the next start removes it.

A lock file that could not be locked, or read, must not be removed.
"""

NEVER_FAIL = ("epoll.poll", "eventfd_read", "eventfd_write")
"""These fail by misuse alone (EAGAIN is no failure). The host is told, and the server goes on."""


class Lines(logging.Handler):
    """Keeps what is written to the log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            line += f" (way {way_of(record.exc_info[1]):x})"  # each traceback may have its line
        self.lines.append(line)


class Caller(Peer):
    """A client made by hand that knows what it has asked and what it was told."""

    def __init__(self, server: Server[Any] | str) -> None:
        super().__init__(server)
        self.asked: dict[int, Any] = {}
        self.told: list[Any] = []
        self.pieces: dict[int, list[Any]] = {}
        self.left_alone = False  # it has gone, or lies: nothing is owed to it

    def ask(self, value: Any, name: str = "Echo", **fields: Any) -> bytes:
        """Return the next call. `value` is the answer that must come, None: any."""
        call_id = len(self.asked) + 1
        self.asked[call_id] = value
        return call(call_id, name, **(fields or {"value": value}))

    def close_now(self) -> None:
        """Go; nothing is owed any more."""
        self.left_alone = True
        self.ended = True
        self.close()

    def listen(self) -> None:
        """Take in what has come."""
        for message in [] if self.ended else self.received():
            if len(message) == 3 and message[1] == 2:
                self.pieces.setdefault(message[0], []).append(message[2])
            else:
                self.told.append(message)

    @property
    def is_content(self) -> bool:
        """Whether every call is answered, or none will be."""
        self.listen()
        return (
            self.ended
            or self.left_alone
            or {message[0] for message in self.told} >= self.asked.keys()
        )


class Run:
    """What one scenario sees."""

    def __init__(self, directory: str, faults: Faults, lines: Lines) -> None:
        self.directory = directory
        self.path = f"{directory}/s"
        self.faults = faults
        self.lines = lines
        self.host = Host(do=lambda: None)
        self.servers: list[Server[Any]] = []
        self.callers: list[Caller] = []
        self.values = 0
        self.before = descriptors()

    # What a scenario does

    def server(self, make: Any = None, **limits: Any) -> Server[Any] | None:
        """Make a server; None if a fault kept it from being made."""
        try:
            if make is not None:
                server: Server[Any] = make()
            else:
                ours = LIMITS
                if limits:
                    ours = Limits(**{"accept_pause_seconds": 0.002, "max_clients": 6} | limits)
                server = Server(self.path, COMMANDS, limits=ours)
        except OSError:  # AlreadyRunning, FileExistsError and UnsafeAddress are such
            assert self.faults.met, "a constructor failed without a fault"
            return None
        self.servers.append(server)
        return server

    def caller(self, server: Server[Any] | str) -> Caller:
        """Connect a client made by hand."""
        self.callers.append(Caller(server))
        return self.callers[-1]

    def value(self) -> int:
        """Return a value that no other call of this run has."""
        self.values += 1
        return self.values

    def say(self, caller: Caller, *frames: bytes) -> None:
        """Send, if the server has not closed the connection."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            caller.send(*frames)

    def poll(self, server: Server[Any], **budget: Any) -> None:
        """Poll; nothing may come out of it."""
        try:
            server.poll(self.host, **budget)
        except OSError:
            if self.faults.kind not in NEVER_FAIL or not self.faults.met:
                raise

    def wake(self, server: Server[Any]) -> None:
        """Wake, which can't fail either."""
        try:
            server.wake()
        except OSError:
            assert self.faults.kind in NEVER_FAIL, "wake() has raised"

    def serve(self, server: Server[Any] | None, polls: int = 4) -> None:
        """Poll a few times while the descriptor says so."""
        while server is not None and polls and not server.closed and readable(server):
            self.poll(server)
            polls -= 1

    def close(self, server: Server[Any]) -> None:
        """Close a server. What close(2) says may come out, and the rest is done."""
        try:
            server.close()
        except OSError:
            # close(2) has closed it, whatever it says.
            assert self.faults.kind == "close", "close() has raised"
            assert self.faults.met
            self.faults.on = False
            server.close()

    # What must hold

    def look_back(self) -> None:
        """Check the invariants. The faults are off."""
        self.host.do = lambda: None
        for server in self.servers:
            if not server.closed:
                self._serves(server)
        for caller in self.callers:
            self._check_answers(caller)
        ran = Counter(value for value in self.host.log if type(value) is int)
        assert not ran or max(ran.values()) == 1, f"run twice: {ran}"
        for caller in self.callers:
            caller.close()
        for server in self.servers:
            if not server.closed:
                self._settle(server)
                stats = server.stats()
                assert stats["clients"] == 0, stats
                assert stats["in_flight"] == 0, stats
                server.close()
        self._is_clean()

    def clear_up(self) -> None:
        """After a violation: leave nothing to the next run."""
        for thing in (*self.servers, *self.callers):
            with contextlib.suppress(Exception):
                thing.close()
        for name in set(os.listdir(self.directory)) - {FOREIGN}:
            with contextlib.suppress(OSError):
                os.unlink(f"{self.directory}/{name}")

    def _serves(self, server: Server[Any]) -> None:
        for _ in range(2):  # the second is there for one that was refused, or told to come again
            fresh = self.caller(server)
            fresh.send(fresh.ask(self.value()), fresh.ask(self.value()))
            self._wait(server, lambda: all(caller.is_content for caller in self.callers))
            if not fresh.ended:
                break
        assert not fresh.ended, "a good client is not served"
        self._settle(server)

    def _settle(self, server: Server[Any]) -> None:
        self._wait(server, lambda: not readable(server) and server.next_deadline() is None)
        assert not server.pending

    def _wait(self, server: Server[Any], condition: Any) -> None:
        patience = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < patience, "it never came"
            when = server.next_deadline()
            seconds = 0.02 if when is None else max(0.0, min(0.02, when - time.monotonic()))
            if readable(server, seconds) or (when is not None and when <= time.monotonic()):
                server.poll(self.host)

    def _check_answers(self, caller: Caller) -> None:
        caller.listen()
        last = 0
        for call_id, kind, *rest in caller.told:
            if call_id is None:
                assert kind == 1
                continue
            assert call_id in caller.asked, f"nobody asked {call_id}"
            expected = caller.asked.pop(call_id)
            if kind == 0 and expected is not None:
                assert rest == [expected], (rest, expected)
                assert call_id > last, "answers out of their order"
                last = call_id
        if caller.left_alone:
            return
        said = self.lines.lines or any(message[0] is None for message in caller.told)
        assert caller.ended or not caller.asked, f"not answered: {caller.asked}"
        if caller.ended and not said:
            assert self.faults.kind in ("recv", "send"), "closed without a word"
            assert self.faults.number in (errno.ECONNRESET, errno.EPIPE), "closed without a word"

    def _is_clean(self) -> None:
        self.host.log.clear()
        self.host.do = None
        made = max(1, len(self.servers))  # each has a log of its own
        self.servers.clear()
        gc.collect()
        left = descriptors() - self.before
        assert not left, f"descriptors are left: {[_named(fd) for fd in left]}"
        names = set(os.listdir(self.directory)) - {FOREIGN}
        assert not names or self.faults.kind in CLOSES, f"left behind: {names}"
        if names:
            Server(self.path, COMMANDS).close()
            assert set(os.listdir(self.directory)) <= {FOREIGN}
        lines = self.lines.lines
        assert len(lines) <= MOST_LINES, f"too many lines: {lines}"
        assert max(Counter(lines).values(), default=0) <= made, f"again in the log: {lines}"


def descriptors() -> set[int]:
    """Return the descriptors of this process that are open."""
    with os.scandir("/proc/self/fd") as entries:
        names = {int(entry.name) for entry in entries}
    return {fd for fd in names if _is_open(fd)}


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _named(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return str(fd)


@contextlib.contextmanager
def watched() -> Iterator[Lines]:
    """Keep what is logged; let a warning, or an exception that nobody can raise, be an error."""
    lines = Lines()
    logger = logging.getLogger("ipcpoll")
    propagate, logger.propagate = logger.propagate, False
    # A future says there that its callback has raised, which can only be one of NEVER_FAIL.
    futures = logging.getLogger("concurrent.futures")
    futures.disabled = True
    logger.addHandler(lines)
    hook, sys.unraisablehook = sys.unraisablehook, _collect
    UNRAISABLE.clear()
    gc.collect()
    gc.freeze()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield lines
    finally:
        gc.unfreeze()
        sys.unraisablehook = hook
        logger.removeHandler(lines)
        logger.propagate = propagate
        futures.disabled = False


UNRAISABLE: list[str] = []


def _collect(event: Any) -> None:
    UNRAISABLE.append(f"{event.exc_value!r} in {event.object!r}")


DOCUMENTED = (IpcError, OSError)
"""What a client may raise: its own tree, and what socket(2) and connect(2) say."""
