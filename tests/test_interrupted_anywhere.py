"""Promise 3, to the letter: KeyboardInterrupt and SystemExit at every line that `poll` executes.

A signal handler can raise between any two steps. Each run raises at one line, the next run at the
next, until a run ends without. After each: nothing else than the interruption came out of `poll`,
other clients are served in order, at worst one connection was closed, and the descriptor is
truthful. (Every line, by a trace function; every point where the interpreter can deliver one is
more, and left to the campaign of faults.)
"""

from __future__ import annotations

import gc
import logging
import sys
import warnings
from concurrent.futures import Future

import pytest
from harness import COMMANDS as BASIC
from harness import Host, Peer, call, encode, readable, serve_until, settle
from interrupting import LATE_COMMANDS, Interrupter

from ipcpoll import Server, Topic
from ipcpoll.connection import Connection
from ipcpoll.round import Round

pytestmark = pytest.mark.once


COMMANDS = [*BASIC, *LATE_COMMANDS]


def one_call(server, host, interrupter):
    """A new client, a call, an answer, the client goes."""
    with Peer(server) as peer:
        peer.call(1, "Echo", value=1)
        interrupter.poll(server, host)
    interrupter.poll(server, host)


def pipelined_and_half(server, host, interrupter):
    """Several frames with one turn a poll, a bad frame, half a frame, two clients."""
    with Peer(server) as first, Peer(server) as second:
        first.send(*(call(i, "Echo", value=i) for i in range(3)), b"\xd8\x18\x41\x00")
        second.send(call(1, "Refuse", code="c"), call(2, "Echo", value=2)[:-1])
        for _ in range(3):
            interrupter.poll(server, host)
            server.poll(host, max_commands=1)


def back_pressure(server, host, interrupter):
    """A large answer that leaves in pieces."""
    with Peer(server) as peer:
        peer.send(call(1, "Blob", size=600_000), call(2, "Blob", size=10))
        interrupter.poll(server, host)
        peer.received(200_000)
        interrupter.poll(server, host)


def nested(server, host, interrupter):
    """A command that polls, and another client inside."""
    with Peer(server) as first, Peer(server) as second:
        first.call(1, "Do", value=1)
        server.poll(host, max_commands=0)

        def inside():
            second.call(2, "Echo", value=2)
            if interrupter.poll(server, host):
                raise interrupter.interrupt

        host.do = inside
        try:
            server.poll(host)
        except interrupter.interrupt:
            pass


def late_answers(server, host, interrupter):
    """A future, pieces, a topic, a notification in steps; one ends, one is cancelled, all go."""
    with Peer(server) as peer, Peer(server) as other:
        other.send(call(None, "Steps"))
        peer.send(call(1, "Ask"), call(2, "Steps"), call(3, "Watch"), call(4, "Ask"))
        interrupter.poll(server, host)
        for thing in list(host.log):
            if isinstance(thing, Future):
                thing.set_result(5)
                break
        for thing in list(host.log):
            if isinstance(thing, Topic):
                thing.publish(8)
        interrupter.poll(server, host)
        peer.socket.setblocking(True)
        try:
            peer.send(encode([4]))
        except BrokenPipeError:
            pass  # it was interrupted in the midst of its work
        peer.socket.setblocking(False)
        interrupter.poll(server, host)
    interrupter.poll(server, host)


SCENARIOS = [one_call, pipelined_and_half, back_pressure, nested]


@pytest.mark.parametrize(
    ("scenario", "interrupt"),
    [
        *((scenario, KeyboardInterrupt) for scenario in SCENARIOS),
        *((scenario, SystemExit) for scenario in SCENARIOS),
        (late_answers, KeyboardInterrupt),
    ],
)
def test_hazard_57_interrupted_at_every_line(directory, scenario, interrupt):
    logging.getLogger("ipcpoll").setLevel(logging.CRITICAL + 1)
    try:
        at = 0
        while True:
            at += 1
            interrupter = Interrupter(at, interrupt)
            with warnings.catch_warnings():
                # A connection that was just being accepted is closed by the garbage collector.
                warnings.simplefilter("ignore", ResourceWarning)
                try:
                    _run(f"{directory}/{at}", scenario, interrupter)
                except BaseException as error:
                    error.add_note(f"interrupted at {interrupter.where}")
                    raise
                gc.collect(0)
            if interrupter.where is None:
                break
        assert at > 100
    finally:
        logging.getLogger("ipcpoll").setLevel(logging.NOTSET)


def _run(path, scenario, interrupter):
    host = Host(do=lambda: None)
    with Server(path, COMMANDS) as server, Peer(server) as witness:
        witness.call(1, "Echo", value=-1)
        server.poll(host)
        assert witness.received() == [[1, 0, -1]]
        scenario(server, host, interrupter)
        with Peer(server) as fresh:
            fresh.send(call(2, "Echo", value=-2), call(3, "Echo", value=-3))
            got = []
            serve_until(server, lambda: got.extend(fresh.received()) or len(got) == 2, host)
            assert got == [[2, 0, -2], [3, 0, -3]]
            # The connection in hand may have been closed; this one was touched by nobody, or it
            # is served as before.
            if not witness.received() and not witness.ended:
                witness.call(2, "Echo", value=-4)
                late = []
                serve_until(
                    server,
                    lambda: late.extend(witness.received()) or late or witness.ended,
                    host,
                )
                assert late == [[2, 0, -4]]
            settle(server, host)
        settle(server, host)
        assert not readable(server)
        # Not one is forgotten: each was answered, cancelled, or ended with its client.
        assert server.stats()["in_flight"] == 0
        # One that was interrupted before it was the server's is nobody's: it has no callback.
        futures = [thing for thing in host.log if isinstance(thing, Future)]
        assert all(future.done() or not future._done_callbacks for future in futures)
        assert not any(thing.subscribers for thing in host.log if isinstance(thing, Topic))
        assert server.stats()["clients"] == (0 if witness.ended else 1)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, MemoryError])
def test_hazard_57_interrupted_again_at_every_line_of_the_clearing_up(
    directory, monkeypatch, interrupt
):
    """What the second exception leaves undone, the next poll does first."""
    logging.getLogger("ipcpoll").setLevel(logging.CRITICAL + 1)
    let_go, flush = Round._let_go, Connection.flush
    try:
        at = 0
        while True:
            at += 1
            interrupter = Interrupter(at, interrupt)
            struck = []

            def clear_up(self, error, depth, interrupter=interrupter):
                before = sys.gettrace()
                sys.settrace(interrupter)
                try:
                    return let_go(self, error, depth)
                finally:
                    sys.settrace(before)

            def send_and_strike(self, struck=struck):
                flush(self)
                if not struck:
                    struck.append(self)
                    raise interrupt  # it was sent, and nobody knows

            monkeypatch.setattr(Round, "_let_go", clear_up)
            monkeypatch.setattr(Connection, "flush", send_and_strike)
            _interrupt_twice(f"{directory}/{at}", interrupt)
            assert struck
            if interrupter.where is None:
                break
        assert at > 10
    finally:
        logging.getLogger("ipcpoll").setLevel(logging.NOTSET)


def _interrupt_twice(path, interrupt):
    host = Host()
    with Server(path, COMMANDS) as server, Peer(server) as witness, Peer(server) as touched:
        server.poll(host, max_commands=0)
        touched.send(call(1, "Echo", value=1), call(2, "Echo", value=2))
        try:
            server.poll(host)
        except interrupt:
            pass
        witness.call(3, "Echo", value=3)
        got = []
        serve_until(server, lambda: got.extend(witness.received()) or got, host)
        assert got == [[3, 0, 3]]
        settle(server, host)
        answered = touched.received()
        assert answered in ([], [[1, 0, 1]], [[1, 0, 1], [2, 0, 2]]), "none twice"
        assert touched.ended, "it was not whole"
        assert server.stats()["clients"] == 1
        assert server._clients.held == 0
