"""`ipcpoll dial APP`: pass bytes between a program and stdin and stdout. What ssh runs over there.

It connects as a client does, writes one line, ``ipcpoll-dial 1 {"pid", "uid", "dial"}``, and only
then passes bytes on. What fails before that line has not reached the program.

What is promised:

* It holds at most 256 KiB in each direction, and reads no more from a side whose bytes the other
  does not take.
* The end of one direction is passed on, and the other goes on. When both have ended, or whoever
  reads its stdout has gone, it ends.
* It never changes how its stdin and stdout are open (they may be shared), and never blocks on one
  direction while the other could move.
* The program sees its name, ``ipcpoll-dial``. It imports neither click nor rich.
"""

from __future__ import annotations

import json
import os
import select
import socket
import stat
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from .. import programs
from . import exits
from .durations import TIMEOUT, in_seconds
from .exits import Exit, Usage

NAME: Final = "ipcpoll-dial"
MOST_HELD: Final = 256 * 1024
_MOST_READ: Final = 64 * 1024
_PIPE_BUF: Final = 4096
"""A pipe that is ready takes so many bytes without blocking, pipe(7)."""

_IN, _OUT = 0, 1
_ENDED: Final = select.POLLHUP | select.POLLERR | select.POLLNVAL
HELP: Final = f"""\
Usage: ipcpoll dial [OPTIONS] APP

  Pass bytes between a program and stdin and stdout: ssh runs it on the other
  machine. First comes one line: {NAME} 1 {{"pid", "uid", "dial"}}.

Options:
  --timeout SECONDS  Wait so long at most for the connection; 5 unless given.
  --user NAME        As root: become this user first, and ask his programs.
  --help             Show this message and exit.
"""


class Words(NamedTuple):
    """What was asked for."""

    address: str
    seconds: float
    user: str | None


def main(arguments: Sequence[str]) -> int:
    """Run the verb with these arguments, its own name among them; return the exit code."""
    if "--help" in arguments:
        print(HELP, end="")
        return Exit.DONE
    return exits.run(lambda: _dial(arguments))


def _dial(arguments: Sequence[str]) -> None:
    words = parse(arguments)
    # First: who has become another user may not write there.
    with suppress(OSError), open("/proc/self/comm", "w", encoding="ascii") as file:
        file.write(NAME)
    if words.user is not None:
        from . import users  # noqa: PLC0415

        users.become(words.user)
    try:
        connected = programs.connect(words.address, timeout=words.seconds)
    except ValueError as error:
        raise Usage(str(error)) from None
    with connected.socket:
        who = {"pid": connected.peer.pid, "uid": connected.peer.uid, "dial": os.getpid()}
        Pump(connected.socket, f"{NAME} 1 {json.dumps(who)}\n".encode()).run()


def parse(arguments: Sequence[str]) -> Words:
    """Return what was asked for. Raises Usage."""
    addresses: list[str] = []
    seconds, user = TIMEOUT, None
    words = iter(arguments)
    for word in words:
        option, is_joined, value = word.partition("=")
        if option in ("--timeout", "--user"):
            value = value if is_joined else next(words, "")
            if not value:
                raise Usage(f"{option} needs a value; `ipcpoll dial --help` says how")
            if option == "--user":
                user = value
                continue
            try:
                seconds = in_seconds(value)
            except ValueError as error:
                raise Usage(f"--timeout {error}") from None
        elif word not in ("-j", "--json", "--yes"):
            addresses.append(word)
    addresses.remove("dial")
    match addresses:
        case [address] if not address.startswith("-"):
            return Words(address, seconds, user)
        case _:
            raise Usage("dial needs the name of one program; `ipcpoll dial --help` says how")


class _Way:
    """Bytes in one direction: what is held, and whether more comes."""

    def __init__(self, held: bytes = b"") -> None:
        self.held = bytearray(held)
        self.has_ended = False  # nothing more comes in
        self.is_over = False  # and the other side knows

    @property
    def has_room(self) -> bool:
        return not self.has_ended and len(self.held) < MOST_HELD

    def take(self, data: bytes) -> None:
        self.held += data
        self.has_ended = not data

    def take_from_stdin(self) -> bool:
        """Take what is there, at least a byte or the end; return whether that was so."""
        try:
            self.take(os.read(_IN, self.wanted))
        except BlockingIOError:  # it was opened so by somebody else
            return False
        except OSError:  # a terminal that has gone
            self.take(b"")
        return not self.has_ended

    @property
    def wanted(self) -> int:
        return min(_MOST_READ, MOST_HELD - len(self.held))


class Pump:
    """Passes bytes on, from stdin to the program and from the program to stdout."""

    def __init__(self, program: socket.socket, greeting: bytes) -> None:
        self._program = program
        self._there = _Way()
        self._back = _Way(greeting)
        # A copy for each: they may be one socket, of which one half ends before the other.
        self._in_socket, self._out_socket = _socket_of(_IN), _socket_of(_OUT)

    def run(self) -> None:
        """Pass bytes on until both directions have ended, or nobody reads stdout."""
        try:
            while not (self._there.is_over and self._back.is_over):
                if not self._step(dict(self._poll().poll())):
                    return
        finally:
            for each in (self._in_socket, self._out_socket):
                if each is not None:
                    each.close()

    def _poll(self) -> select.poll:
        there, back = self._there, self._back
        poll = select.poll()
        if there.has_room:
            poll.register(_IN, select.POLLIN)
        if not back.is_over:
            poll.register(_OUT, select.POLLOUT if back.held else 0)
        events = select.POLLIN if back.has_room else 0
        if there.held:
            events |= select.POLLOUT
        if events or back.has_ended:  # else its hang-up would be told again and again
            poll.register(self._program, events)
        return poll

    def _step(self, ready: dict[int, int]) -> bool:
        """Move what can be moved; return whether anybody still reads stdout."""
        at_out, at_program = ready.get(_OUT, 0), ready.get(self._program.fileno(), 0)
        if at_out & _ENDED:
            self._send_the_last()
            return False
        if ready.get(_IN):
            self._there.take_from_stdin()
        if self._there.held and at_program & (select.POLLOUT | _ENDED):
            self._send()
        if self._back.has_room and at_program & (select.POLLIN | _ENDED):
            self._receive()
        elif self._back.has_ended and at_program & _ENDED:  # it is not there any more
            self._there.is_over = True
        if self._back.held and at_out & select.POLLOUT and not self._write():
            return False
        self._pass_ends_on()
        return True

    def _send(self) -> None:
        try:
            sent = self._program.send(memoryview(self._there.held)[:_MOST_READ])
            del self._there.held[:sent]
        except BlockingIOError:
            pass
        except OSError:  # it takes nothing any more; what it has said may still be there
            self._there.held.clear()
            self._there.has_ended = self._there.is_over = True

    def _send_the_last(self) -> None:
        """Whoever was there has gone: send what it said before, as far as it can be sent now."""
        moves = True
        while moves:
            poll = select.poll()
            poll.register(_IN, select.POLLIN)
            held = len(self._there.held)
            moves = bool(self._there.has_room and poll.poll(0)) and self._there.take_from_stdin()
            if self._there.held:
                self._send()
            moves = moves or len(self._there.held) < held

    def _receive(self) -> None:
        try:
            data = self._program.recv(self._back.wanted)
        except BlockingIOError:
            return
        except OSError:  # it has closed the connection, with something of ours unread
            data = b""
        self._back.take(data)

    def _write(self) -> bool:
        held = memoryview(self._back.held)
        try:
            if self._out_socket is None:
                written = os.write(_OUT, held[:_PIPE_BUF])
            else:
                written = self._out_socket.send(held[:_MOST_READ], socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            held.release()
        del self._back.held[:written]
        return True

    def _pass_ends_on(self) -> None:
        there, back = self._there, self._back
        if there.has_ended and not there.held and not there.is_over:
            there.is_over = True
            with suppress(OSError):
                self._program.shutdown(socket.SHUT_WR)
        if back.has_ended and not back.held and not back.is_over:
            back.is_over = True
            if self._out_socket is not None:
                with suppress(OSError):
                    self._out_socket.shutdown(socket.SHUT_WR)
            else:
                exits.send_nowhere(_OUT)


def _socket_of(fd: int) -> socket.socket | None:
    """Return a copy of a descriptor as a socket; None: it is none."""
    try:
        is_socket = stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:  # it is closed
        return None
    return socket.socket(fileno=os.dup(fd)) if is_socket else None
