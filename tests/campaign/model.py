"""Clients and a server do what Hypothesis says; a simple model knows what must be answered.

    python tests/campaign/model.py --seconds 600

The actions of clients: connect, send a whole frame or a part of one, send the rest, read a little,
stop reading, finish sending, be killed (close), cancel, come again. Those of the server: poll with
all kinds of budgets, be woken, finish an answer that comes later, poll inside a command, close
and be made anew.

The model: every whole call of a client that still listens is answered exactly once. What is
answered at once comes in the order of the calls; a cancelled call is answered once, with its answer
or its cancellation; when the server closes, each client gets its answers, `shutting-down` for each
call that had begun, then `shutting-down` for the others, then the end. After everything the server
is silent and has forgotten nobody.

This says what tests/together/test_against_a_model.py says of budgets and limits for each of its
stories, and adds answers that come later, cancels, half-closes and the server's own end; and what
fails is made small.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time
from concurrent.futures import Future

sys.path.insert(0, os.path.abspath(f"{__file__}/../../support"))

import socket
from collections import Counter

import hypothesis
from harness import COMMANDS as BASIC
from harness import Host, Peer, call, encode, readable, serve_until, settle
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from interrupting import Ask
from part import Figures, run_as_program

from ipcpoll import Limits, Server

COMMANDS = [*BASIC, Ask]
COUNTS: Counter[str] = Counter()


class Client(Peer):
    """A client, and what the model says that it is owed."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.kinds: dict[int, str] = {}  # of each call that was made, by its id
        self.ends: list[int] = []  # how many bytes are sent when each of these calls is whole
        self.unsent = b""
        self.written = 0
        self.sent = 0
        self.got: list[list] = []
        self.half_closed = False
        self.left_behind = False  # the server has closed

    def write(self, frame: bytes, call_id: int | None = None, kind: str = "") -> None:
        self.unsent += frame
        self.written += len(frame)
        if call_id is not None:
            self.kinds[call_id] = kind
            self.ends.append(self.written)

    def send_some(self, most: int) -> None:
        if self.half_closed:
            return
        try:
            sent = self.send_what_fits(self.unsent[:most])
        except (BrokenPipeError, ConnectionResetError):
            assert self.left_behind
            sent = 0
        self.unsent = self.unsent[sent:]
        self.sent += sent

    @property
    def whole(self) -> list[int]:
        """The calls of which the server can have every byte."""
        return [i for i, end in zip(self.kinds, self.ends, strict=True) if end <= self.sent]

    @property
    def answered(self) -> set[int]:
        return {message[0] for message in self.got if message[0] is not None}

    def check(self) -> None:
        """What has come, and in which order."""
        ids = [message[0] for message in self.got if message[0] is not None]
        assert len(set(ids)) == len(ids), "answered twice"
        assert set(ids) <= set(self.whole), "answered before it was asked"
        at_once = [i for i in ids if self.kinds[i] != "Ask"]
        assert at_once == sorted(at_once), "out of their order"
        for call_id, kind, body in (m for m in self.got if m[0] is not None):
            what = self.kinds[call_id]
            if what == "Echo":
                assert (kind, body) == (0, call_id)
            elif what == "Refuse":
                assert (kind, body["code"]) == (1, "no")
            elif what == "Ask":
                if kind == 0:
                    assert body == 7
                elif body["code"] == "shutting-down":  # it had begun when the server closed
                    assert self.left_behind
                    assert body["data"] == {"began": True}
                else:
                    assert body["code"] == "cancelled"
            elif what == "Blob":
                assert kind == 0
                assert set(body) == {0}


class Machine(RuleBasedStateMachine):
    """See the module."""

    clients = Bundle("clients")

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(prefix="ipcpoll-", dir=_memory())
        self.path = f"{self.directory.name}/s"
        self.limits = Limits(
            poll_seconds=10.0,
            max_frames_waiting=2,
            read_size=200,
            max_unsent=5000,
            max_nested_polls=2,
            max_accepts=3,
        )
        self.server = Server(self.path, COMMANDS, limits=self.limits)
        self.host = Host(do=self.inside)
        self.depth = 0
        self.all: list[Client] = []

    def inside(self) -> None:
        """What the command Do does: it polls."""
        if self.depth < 3:
            self.depth += 1
            try:
                self.server.poll(self.host, max_commands=2)
            finally:
                self.depth -= 1

    # Clients

    @rule(target=clients)
    def connect(self):
        client = Client(self.path)
        self.all.append(client)
        COUNTS["clients"] += 1
        return client

    @rule(
        client=clients,
        kinds=st.lists(
            st.sampled_from(["Echo", "Echo", "Do", "Refuse", "Ask", "Blob"]), min_size=1, max_size=5
        ),
        missing=st.integers(0, 20),
    )
    def ask(self, client, kinds, missing):
        """Calls of which the last bytes may be missing for now."""
        for kind in kinds:
            call_id = len(client.kinds)
            fields = {"value": call_id}
            if kind == "Refuse":
                fields = {"code": "no"}
            elif kind == "Ask":
                fields = {}
            elif kind == "Blob":
                fields = {"size": 150_000}
            client.write(call(call_id, kind, **fields), call_id, kind)
            COUNTS["calls"] += 1
        client.send_some(max(0, len(client.unsent) - missing))

    @rule(client=clients, most=st.integers(1, 400))
    def go_on(self, client, most):
        client.send_some(most)

    @rule(client=clients, data=st.data())
    def cancel(self, client, data):
        late = [i for i, kind in client.kinds.items() if kind == "Ask"]
        if late:
            client.write(encode([data.draw(st.sampled_from(late))]))
            client.send_some(len(client.unsent))

    @rule(client=clients, most=st.sampled_from([1, 50, 3000, 1 << 20]))
    def read(self, client, most):
        self.take(client, most)

    @rule(client=clients)
    def half_close(self, client):
        """Finish sending; it still wants its answers."""
        if not client.half_closed:
            client.half_closed = True
            try:
                client.socket.shutdown(socket.SHUT_WR)
            except OSError:
                assert client.left_behind

    @rule(client=consumes(clients))
    def kill(self, client):
        self.all.remove(client)
        client.close()

    # The server

    @rule(
        commands=st.sampled_from([None, 0, 1, 2, 5]),
        seconds=st.sampled_from([None, 0]),
        wake=st.booleans(),
    )
    def poll(self, commands, seconds, wake):
        if wake:
            self.server.wake()
            assert readable(self.server)
        self.server.poll(self.host, max_commands=commands, max_seconds=seconds)
        COUNTS["polls"] += 1

    @rule(data=st.data())
    def finish_late(self, data):
        futures = [f for f in self.host.log if isinstance(f, Future) and not f.done()]
        if futures:
            data.draw(st.sampled_from(futures)).set_result(7)

    @precondition(lambda self: len(self.host.log) >= 1)
    @rule()
    def close_and_reopen(self):
        """Everybody is told; who comes next is served by another."""
        self.server.close()
        assert not os.path.exists(self.path)
        for client in self.all:
            client.left_behind = True
        self.host.log.clear()
        self.server = Server(self.path, COMMANDS, limits=self.limits)
        COUNTS["closes"] += 1

    @invariant()
    def the_descriptor_is_truthful(self):
        assert readable(self.server) or not self.server.pending

    @invariant()
    def nothing_has_come_twice(self):
        for client in self.all:
            client.check()

    # The end

    def take(self, client: Client, most: int = 1 << 24) -> None:
        if not client.ended:
            client.got += client.received(most)

    def teardown(self):
        """Let all late answers be finished, and everybody send and read; then compare."""
        try:
            self.finish()
        finally:
            self.server.close()
            for client in self.all:
                client.close()
            self.directory.cleanup()

    def finish(self) -> None:
        def is_told() -> bool:
            for thing in self.host.log:
                if isinstance(thing, Future) and not thing.done():
                    thing.set_result(7)
            done = True
            for client in self.all:
                if not client.left_behind:
                    client.send_some(len(client.unsent))
                self.take(client)
                client.check()
                owed = client.left_behind or client.answered == set(client.whole)
                done = done and owed
            return done

        serve_until(self.server, is_told, self.host)
        settle(self.server, self.host)
        for client in self.all:
            self.take(client)
            client.check()
            COUNTS["answers"] += len(client.answered)
            if client.left_behind:
                told = [m[2]["code"] for m in client.got if m[0] is None]
                assert client.ended
                # A farewell for which there was no room is not said, and that is in the log.
                assert told in (["shutting-down"], []), told
            else:
                assert not any(m[0] is None for m in client.got)
        here = [client for client in self.all if not client.left_behind]
        open_here = [client for client in here if not client.half_closed]
        stats = self.server.stats()
        assert stats["in_flight"] == 0
        assert stats["clients"] == len(open_here), (stats, len(open_here))
        COUNTS["examples"] += 1


def play(examples: int, steps: int = 30, *, derandomize: bool) -> None:
    """Let Hypothesis play so many examples."""
    logger = logging.getLogger("ipcpoll")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        run_state_machine_as_test(
            Machine,
            settings=hypothesis.settings(
                max_examples=examples,
                stateful_step_count=steps,
                derandomize=derandomize,
                deadline=None,
                database=None,
                suppress_health_check=list(hypothesis.HealthCheck),
            ),
        )
    finally:
        logger.setLevel(level)


def campaign(seconds: float) -> Figures:
    """Play new examples until the time is over."""
    until = time.monotonic() + seconds
    COUNTS.clear()
    while True:
        play(200, 50, derandomize=False)
        if time.monotonic() >= until:
            break
    return {**COUNTS, "violations": 0}


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


if __name__ == "__main__":
    run_as_program(campaign, about=__doc__)
