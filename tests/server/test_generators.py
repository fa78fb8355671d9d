"""Answers in pieces: generators, stepped one turn at a time. Real sockets."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
import weakref
from collections.abc import AsyncIterator, Generator, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import pytest
from harness import Peer, call, encode, readable, serve_until, settle
from twisted.internet.defer import Deferred

from ipcpoll import CommandError, Turn, UsageError, caller


@dataclass
class Desk:
    """The program."""

    log: list[Any] = field(default_factory=list)
    futures: list[Any] = field(default_factory=list)
    do: Any = None


@dataclass
class Count:
    """Counts, and says how far it came."""

    to: int

    def process(self, ctx: Desk) -> Generator[int, None, str]:
        try:
            for number in range(self.to):
                ctx.log.append(number)
                yield number
            return f"counted to {self.to}"
        finally:
            ctx.log.append("closed")


@dataclass
class Forever:
    """Gives blobs without an end."""

    size: int = 0

    def process(self, ctx: Desk) -> Iterator[bytes]:
        try:
            while True:
                ctx.log.append("step")
                yield bytes(self.size)
        finally:
            ctx.log.append("closed")


@dataclass
class Job:
    """A long job in slices, without pieces."""

    turns: int

    def process(self, ctx: Desk) -> Generator[Turn, None, int]:
        for _ in range(self.turns):
            ctx.log.append("slice")
            yield Turn()
        return self.turns


@dataclass
class Fetch:
    """Waits for what the program finds."""

    def process(self, ctx: Desk) -> Generator[str | Turn, Any, int]:
        yield "waiting"
        try:
            found = yield Turn(ctx.futures[0])
        except ValueError as error:
            yield str(error)
            return -1
        yield f"found {found}"
        return found


@dataclass
class Step:
    """Does what the test says in each step."""

    def process(self, ctx: Desk) -> Generator[int, None, None]:
        for number in itertools.count():
            ctx.log.append(number)
            ctx.do(number)
            yield number


@dataclass
class Listed:
    """Any iterator is good."""

    def process(self, ctx: Desk) -> Iterator[int]:
        return iter([1, 2, 3])


@dataclass
class Now:
    value: int

    def process(self, ctx: Desk) -> int:
        ctx.log.append(("now", self.value))
        return self.value


@dataclass
class Call:
    """Lets the other client call as soon as this one has been served."""

    next: int

    def process(self, ctx: Desk) -> None:
        ctx.futures[self.next % 2].send(call(self.next, "Call", next=self.next + 1))
        ctx.log.append("call")


COMMANDS = [Count, Forever, Job, Fetch, Step, Listed, Now, Call]


@pytest.fixture
def desk():
    return Desk()


@pytest.fixture
def server(make_server):
    server = make_server(COMMANDS)
    yield server
    server.close()  # endless ones would never let it fall silent


def replies(server, peer, count, desk):
    got = []
    serve_until(server, lambda: got.extend(peer.received()) or len(got) >= count, desk)
    assert len(got) == count
    return got


# ---------------------------------------------------------------------------------------------
# Pieces


def test_pieces_then_the_answer(server, desk):
    with Peer(server) as peer:
        peer.send(call(1, "Count", to=3))
        assert replies(server, peer, 4, desk) == [
            [1, 2, 0],
            [1, 2, 1],
            [1, 2, 2],
            [1, 0, "counted to 3"],
        ]
        assert desk.log == [0, 1, 2, "closed"]
        settle(server, desk)
        assert server.stats()["in_flight"] == 0


def test_any_iterator(server, desk):
    with Peer(server) as peer:
        peer.send(call(1, "Listed"))
        assert replies(server, peer, 4, desk) == [[1, 2, 1], [1, 2, 2], [1, 2, 3], [1, 0, None]]


def test_a_step_is_a_turn(server, desk):
    with Peer(server) as peer:
        peer.send(call(1, "Job", turns=5))
        assert server.poll(desk, max_commands=1, max_seconds=60) == 1
        assert desk.log == []
        for done in range(1, 6):
            assert readable(server)
            assert server.pending
            assert server.poll(desk, max_commands=1, max_seconds=60) == 1
            assert desk.log == ["slice"] * done
        assert peer.received() == []
        server.poll(desk, max_commands=1, max_seconds=60)
        assert peer.received() == [[1, 0, 5]]
        settle(server, desk)


def test_max_seconds_0_is_one_step(server, desk):
    with Peer(server) as peer:
        peer.send(call(1, "Job", turns=100))
        server.poll(desk, max_seconds=0)
        for done in range(1, 4):
            assert server.poll(desk, max_seconds=0) == 1
            assert len(desk.log) == done


def test_generators_and_connections_take_turns(server, desk):
    """An endless generator delays each other one by one step, and two of them go side by side."""
    with Peer(server) as busy, Peer(server) as other:
        busy.send(call(1, "Forever"), call(2, "Forever"))
        server.poll(desk, max_commands=4, max_seconds=60)
        other.send(*(call(n, "Now", value=n) for n in range(10)))
        server.poll(desk, max_commands=40, max_seconds=60)
        assert [message[0] for message in other.received()] == list(range(10))
        steps = [entry if entry == "step" else "now" for entry in desk.log]
        longest = max(len(list(group)) for kind, group in itertools.groupby(steps))
        assert longest <= 14  # ten calls came in a row of three: two steps and one call each
        for at in (i for i, kind in enumerate(steps) if kind == "now"):
            assert steps[at + 1 : at + 3] in (["step", "step"], ["step", "step"][: len(steps) - at])
        per_call = [message[0] for message in busy.received()]
        assert abs(per_call.count(1) - per_call.count(2)) <= 2  # the first began one turn earlier


def test_who_calls_during_a_step_waits_for_that_step_alone(server, desk):
    """Not for the end of the poll, which may be many steps away."""
    with Peer(server) as busy, Peer(server) as other, Peer(server) as third:
        settle(server, desk)

        def do(number):
            if number == 5:
                other.send(call(1, "Now", value=1))
            elif number == 20:
                other.send(call(2, "Now", value=2), call(3, "Now", value=3))
                third.send(call(4, "Now", value=4))

        desk.do = do
        busy.send(call(1, "Step"))
        server.poll(desk, max_commands=40, max_seconds=60)
        at = desk.log.index(5)
        assert desk.log[at : at + 3] == [5, ("now", 1), 6]
        at = desk.log.index(20)
        assert set(desk.log[at + 1 : at + 3]) == {("now", 2), ("now", 4)}
        assert desk.log[at + 3 : at + 6] == [21, ("now", 3), 22]


def test_answers_do_not_wait_for_all_steps_of_a_poll(server, desk):
    """They are sent before the next step, when the last ones took their time."""
    with Peer(server) as busy, Peer(server) as other:
        settle(server, desk)
        received = []

        def do(number):
            received.append(other.received())
            end = time.monotonic() + 0.001
            while time.monotonic() < end:
                pass
            if number == 3:
                other.send(call(1, "Now", value=1))

        desk.do = do
        busy.send(call(1, "Step"))
        server.poll(desk, max_commands=12, max_seconds=60)
        assert received[4] == [[1, 0, 1]]


def test_calls_that_never_pause_do_not_starve_a_generator(server, desk):
    """It gives way to those that came, and not again before its own step."""
    with Peer(server) as busy, Peer(server) as one, Peer(server) as two:
        settle(server, desk)
        busy.send(call(1, "Step"))
        one.send(call(0, "Call", next=1))
        desk.do = lambda number: None
        desk.futures = [one, two]
        server.poll(desk, max_commands=60, max_seconds=60)
        steps = [entry for entry in desk.log if isinstance(entry, int)]
        assert len(steps) >= 15


def test_two_streams_of_one_connection_and_plain_calls(server, desk):
    with Peer(server) as peer:
        peer.send(call(1, "Count", to=50), call(2, "Count", to=50), call(3, "Now", value=3))
        got = replies(server, peer, 103, desk)
        assert [message[2] for message in got if message[:2] == [1, 2]] == list(range(50))
        assert [message[2] for message in got if message[:2] == [2, 2]] == list(range(50))
        assert got.index([3, 0, 3]) < 20


def test_an_exception_ends_the_stream_with_its_error(server, desk, caplog):
    def do(number):
        if number == 2:
            raise CommandError("enough", "two is enough")
        if number == 1 and desk.futures:
            raise KeyError("bad")

    desk.do = do
    with Peer(server) as peer:
        peer.send(call(1, "Step"))
        *pieces, error = replies(server, peer, 3, desk)
        assert pieces == [[1, 2, 0], [1, 2, 1]]
        assert error == [1, 1, {"code": "enough", "message": "two is enough"}]
        desk.futures.append(None)
        peer.send(call(1, "Step"))
        piece, error = replies(server, peer, 2, desk)
        assert piece == [1, 2, 0]
        assert error[2] == {"code": "internal", "message": "Step raised KeyError: 'bad'"}
    assert "the command Step raised" in caplog.text


def test_a_piece_that_was_not_promised_ends_the_stream(make_server, desk, caplog):
    @dataclass
    class Wrong:
        def process(self, ctx: Desk) -> Iterator[int]:
            try:
                yield 1
                yield "two"  # type: ignore[misc]
            finally:
                ctx.log.append("closed")

    server = make_server(Wrong)
    with Peer(server) as peer:
        peer.send(call(1, "Wrong"))
        piece, error = replies(server, peer, 2, desk)
        assert piece == [1, 2, 1]
        assert error[1] == 1
        assert "the piece of Wrong is not what its annotation promises" in error[2]["message"]
        assert desk.log == ["closed"]
        settle(server, desk)


def test_a_piece_that_is_too_large_ends_the_stream(make_server, desk):
    server = make_server(COMMANDS, max_answer=1000)
    with Peer(server) as peer:
        peer.send(call(1, "Forever", size=2000))
        [[_, kind, body]] = replies(server, peer, 1, desk)
        assert (kind, body["code"]) == (1, "too-large")
        assert desk.log == ["step", "closed"]
        settle(server, desk)


def test_a_notification_with_pieces_runs_to_its_end(server, desk):
    with Peer(server) as peer:
        peer.send(call(None, "Count", to=5))
    settle(server, desk)
    assert desk.log == [0, 1, 2, 3, 4, "closed"]
    assert server.stats()["in_flight"] == 0


# ---------------------------------------------------------------------------------------------
# Turn


def test_turn_waits_for_a_future(server, desk):
    desk.futures.append(Future())
    with Peer(server) as peer:
        peer.send(call(1, "Fetch"))
        assert replies(server, peer, 1, desk) == [[1, 2, "waiting"]]
        settle(server, desk)
        assert not readable(server, 0.05)
        desk.futures[0].set_result(3)
        assert replies(server, peer, 2, desk) == [[1, 2, "found 3"], [1, 0, 3]]


@pytest.mark.parametrize("kind", [Future, Deferred])
def test_turn_raises_what_the_future_raises(server, desk, kind):
    desk.futures.append(kind())
    with Peer(server) as peer:
        peer.send(call(1, "Fetch"))
        settle(server, desk)
        fail = desk.futures[0].set_exception if kind is Future else desk.futures[0].errback
        fail(ValueError("nothing there"))
        got = replies(server, peer, 3, desk)
        assert got[1:] == [[1, 2, "nothing there"], [1, 0, -1]]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_turn_with_a_future_that_wished_to_end_its_thread(server, desk, error):
    """It is an error of this call, as it is where the future itself is the answer."""
    future: Future[int] = Future()
    desk.futures.append(future)
    with Peer(server) as peer:
        peer.send(call(1, "Fetch"))
        assert replies(server, peer, 1, desk) == [[1, 2, "waiting"]]
        future.set_exception(error)
        [[_, kind, body]] = replies(server, peer, 1, desk)
        assert (kind, body["code"]) == (1, "internal")
        peer.send(call(1, "Now", value=2))
        assert replies(server, peer, 1, desk) == [[1, 0, 2]]


@pytest.mark.parametrize("done", [False, True])
def test_only_a_generator_can_wait(make_server, desk, done):
    @dataclass
    class Wait:
        def process(self, ctx: Desk) -> Iterator[int | Turn]:
            return iter([1, Turn(), Turn(ctx.futures[0])])

    server = make_server([Wait])
    desk.futures.append(Future())
    if done:
        desk.futures[0].set_exception(ValueError("not told"))
    with Peer(server) as peer:
        peer.send(call(1, "Wait"))
        piece, [_, kind, body] = replies(server, peer, 2, desk)
        assert (piece, kind, body["code"]) == ([1, 2, 1], 1, "internal")
        assert "only a generator can wait with Turn(future)" in body["message"]


def test_turn_with_a_future_that_is_done(server, desk):
    done: Future[int] = Future()
    done.set_result(4)
    desk.futures.append(done)
    with Peer(server) as peer:
        peer.send(call(1, "Fetch"))
        assert replies(server, peer, 3, desk)[-1] == [1, 0, 4]


def test_a_future_that_was_waited_for_keeps_nothing(server, desk):
    """It may live as long as the program, and be waited for by one client after the other."""
    desk.futures.append(Future())
    with Peer(server) as peer:
        peer.send(call(1, "Fetch"))
        replies(server, peer, 1, desk)
        settle(server, desk)
        [connection] = server._clients.connections.values()
        protocol = weakref.ref(connection.protocol)
        [late] = map(weakref.ref, connection.jobs.values())
        del connection
    settle(server, desk)
    gc.collect()
    assert (late(), protocol()) == (None, None)
    desk.futures[0].set_result(1)
    assert not readable(server)


def test_a_cancel_while_it_waits_leaves_the_future_alone(server, desk):
    desk.futures.append(Future())
    with Peer(server) as peer:
        peer.send(call(1, "Fetch"))
        settle(server, desk)
        peer.send(encode([1]))
        got = replies(server, peer, 2, desk)
        assert got[-1][2]["code"] == "cancelled"
        assert not desk.futures[0].cancelled()
        desk.futures[0].set_result(1)
        settle(server, desk)
        assert peer.received() == []


def test_turn_takes_futures_only():
    with pytest.raises(TypeError, match=r"^Turn takes a future or a Deferred, not 5$"):
        Turn(5)
    assert repr(Turn()) == "Turn()"
    assert repr(Turn(Future())).startswith("Turn(<Future at ")


# ---------------------------------------------------------------------------------------------
# Back-pressure


def test_a_slow_reader_parks_its_generator_not_the_program(server, desk):
    with Peer(server) as slow, Peer(server) as other:
        slow.send(call(1, "Forever", size=50_000))
        settle(server, desk)  # it falls silent: nobody reads, and nothing more is made
        made = desk.log.count("step")
        assert 5 <= made <= 40
        assert not readable(server, 0.05)
        other.send(call(1, "Now", value=1))
        assert replies(server, other, 1, desk) == [[1, 0, 1]]
        assert desk.log.count("step") == made
        got = 0

        def read_on():
            nonlocal got
            got += len(slow.received())
            return got > made + 20

        serve_until(server, read_on, desk)  # it goes on as soon as there is room
        slow.send(encode([1]))
        serve_until(server, lambda: slow.received() is None or desk.log[-1] == "closed", desk)
        settle_reading(server, slow, desk)


def settle_reading(server, peer, desk):
    serve_until(server, lambda: peer.received() is None or not readable(server), desk)


def test_the_cancel_of_a_parked_stream_is_read(server, desk):
    """Unsent answers stop the reading of calls, or memory would grow; reading them lets it in."""
    with Peer(server) as slow:
        slow.send(call(1, "Forever", size=50_000))
        settle(server, desk)
        slow.send(encode([1]))
        serve_until(server, lambda: slow.received() is None or desk.log[-1] == "closed", desk)


def test_a_parked_stream_ends_with_its_client(server, desk):
    with Peer(server) as slow:
        slow.send(call(1, "Forever", size=50_000))
        settle(server, desk)
    settle(server, desk)
    assert desk.log[-1] == "closed"
    assert server.stats()["in_flight"] == 0


# ---------------------------------------------------------------------------------------------
# Ending


def test_cancel_closes_the_generator(server, desk):
    with Peer(server) as peer:
        peer.send(call(1, "Forever"))
        server.poll(desk, max_commands=5, max_seconds=60)
        peer.received()
        peer.send(encode([1]))
        serve_until(server, lambda: desk.log[-1] == "closed", desk)
        settle(server, desk)
        assert peer.received()[-1][2]["code"] == "cancelled"
        peer.send(call(1, "Now", value=1))
        assert replies(server, peer, 1, desk) == [[1, 0, 1]]


def test_a_client_that_goes_closes_its_generators(server, desk):
    with Peer(server) as peer:
        peer.send(call(1, "Forever"), call(2, "Forever"))
        server.poll(desk, max_commands=6, max_seconds=60)
    settle(server, desk)
    assert desk.log.count("closed") == 2
    assert server.stats()["clients"] == 0


def test_a_generator_that_does_not_want_to_end(make_server, desk, caplog):
    @dataclass
    class Stubborn:
        def process(self, ctx: Desk) -> Iterator[int]:
            while True:
                try:
                    yield 1
                except GeneratorExit:
                    yield 2

    server = make_server([Stubborn, Now])
    with Peer(server) as peer:
        peer.send(call(1, "Stubborn"))
        server.poll(desk, max_commands=3, max_seconds=60)
        peer.received()
        peer.send(encode([1]))
        serve_until(server, lambda: not server.stats()["in_flight"], desk)
        settle(server, desk)
        assert peer.received()[-1][2]["code"] == "cancelled"
    assert "the work of Stubborn could not be ended: RuntimeError" in caplog.text


def test_close_closes_generators_and_says_so(server, desk):
    with Peer(server) as peer:
        peer.send(call(1, "Forever"), call(None, "Forever"))
        server.poll(desk, max_commands=6, max_seconds=60)
        peer.received()
        server.close()
        assert peer.received()[-1][2]["code"] == "shutting-down"
        assert desk.log.count("closed") == 2


def test_a_generator_that_closes_the_server_in_its_last_step(make_server, desk):
    """It is on the stack, so its own answer is sent."""

    @dataclass
    class Stop:
        def process(self, ctx: Desk) -> Generator[int, None, str]:
            yield 1
            ctx.do()
            return "stopped"

    server = make_server([Stop, Count])
    desk.do = server.close
    with Peer(server) as peer, Peer(server) as other:
        other.send(call(1, "Count", to=10_000))
        server.poll(desk, max_commands=2, max_seconds=60)
        peer.send(call(1, "Stop"))
        serve_closing(server, desk)
        assert peer.received()[:2] == [[1, 2, 1], [1, 0, "stopped"]]
        assert other.received()[-1][2]["code"] == "shutting-down"
        assert desk.log[-1] == "closed"


def test_a_generator_that_closes_the_server_in_the_midst(make_server, desk):
    """It goes on for the time of one poll; one that does not end by then is told so."""
    server = make_server(COMMANDS)
    desk.do = lambda number: number == 1 and server.close()
    with Peer(server) as peer:
        peer.send(call(1, "Step"))
        serve_closing(server, desk)
        pieces = peer.received()
        numbers = [piece[2] for piece in pieces[:-2]]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= 2
        told, farewell = pieces[-2:]
        assert (told[0], told[2]["code"], told[2]["data"]) == (1, "shutting-down", {"began": True})
        assert (farewell[0], farewell[2]["code"]) == (None, "shutting-down")


def serve_closing(server, desk):
    while not server.closed:
        assert readable(server, 20)
        server.poll(desk)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interruption_in_a_step(server, desk, interrupt):
    def do(number):
        if number == 1:
            raise interrupt

    desk.do = do
    with Peer(server) as peer, Peer(server) as other:
        peer.send(call(1, "Step"))
        other.send(call(1, "Count", to=3))
        with pytest.raises(interrupt):
            serve_until(server, lambda: False, desk)
        got = replies(server, other, 4, desk)
        assert got[-1] == [1, 0, "counted to 3"]
        piece, error = peer.received()
        assert piece == [1, 2, 0]
        assert error[2]["code"] == "internal"
        assert peer.received() == []
        assert peer.ended  # as for a command that was interrupted
        settle(server, desk)
        assert server.stats()["in_flight"] == 0


def test_nothing_is_left_of_a_stream_that_ended(server, desk):
    with Peer(server) as peer:
        peer.send(call(1, "Forever"))
        server.poll(desk, max_commands=3, max_seconds=60)
        [connection] = server._clients.connections.values()
        [late] = connection.jobs.values()
        generator = weakref.ref(late.work._iterator)
        protocol = weakref.ref(connection.protocol)
        del connection, late
    settle(server, desk)
    gc.collect()
    assert generator() is None
    assert protocol() is None


# ---------------------------------------------------------------------------------------------
# Nested loops


def test_a_nested_poll_serves_others_and_never_steps_what_is_stepped(server, desk):
    with Peer(server) as peer, Peer(server) as other, Peer(server) as third:
        third.send(call(1, "Forever"))
        server.poll(desk, max_commands=3, max_seconds=60)

        def do(number):
            if number == 0:
                other.send(call(7, "Now", value=7))
                peer.send(call(8, "Now", value=8))
                got = []
                serve_until(server, lambda: got.extend(other.received()) or got, desk)
                assert got == [[7, 0, 7]]
                desk.futures.append(desk.log.count("step"))
                for _ in range(5):
                    server.poll(desk, max_commands=3, max_seconds=60)
                desk.futures.append(desk.log.count("step"))

        desk.do = do
        desk.log.clear()
        peer.send(call(1, "Step"))
        got = []
        serve_until(server, lambda: got.extend(peer.received()) or len(got) > 20, desk)
        before, after = desk.futures
        assert after > before  # another one's generator went on meanwhile
        assert desk.log.count(0) == desk.log.count(1) == 1
        assert [8, 0, 8] in got  # its own connection had to wait for it, and was served then


@dataclass
class Poll:
    """Opens a main loop of its own, for a moment."""

    def process(self, ctx: Desk) -> list[str]:
        ctx.log.clear()
        ctx.do(0)
        return list(ctx.log)


def test_a_nested_poll_steps_no_stream_of_the_client_whose_command_runs(make_server, desk):
    """Its pieces would overtake; afterwards it goes on. That of another is stepped."""
    server = make_server([Poll, Forever, Job])
    desk.do = lambda _: [server.poll(desk, max_commands=4, max_seconds=60) for _ in range(3)]
    with Peer(server) as peer, Peer(server) as other:
        peer.send(call(1, "Forever"))
        serve_until(server, lambda: desk.log, desk)
        peer.send(call(2, "Poll"))
        other.send(call(1, "Job", turns=3))
        got = []
        serve_until(
            server, lambda: got.extend(m for m in peer.received() if m[0] == 2) or got, desk
        )
        assert got == [[2, 0, ["slice"] * 3]]
        desk.log.clear()
        serve_until(server, lambda: "step" in desk.log, desk)
        server.close()


def test_a_deadline_that_passes_while_the_generator_is_on_the_stack(server, desk):
    """It is ended as its step returns."""

    def do(number):
        if number == 1:
            serve_until(server, lambda: server.next_deadline() is None, desk)

    desk.do = do
    with Peer(server) as peer:
        peer.send(encode([1, "Step", {}, {"timeout": 0.05}]))
        serve_until(server, lambda: 1 in desk.log and not server.stats()["in_flight"], desk)
        settle(server, desk)
        assert peer.received()[-1][2]["code"] == "cancelled"
        assert desk.log == [0, 1]


# ---------------------------------------------------------------------------------------------
# Who asks; asynchronous generators


def test_caller_is_known_in_each_step(make_server, desk):
    import os

    @dataclass
    class Who:
        def process(self, ctx: Desk) -> Iterator[int]:
            yield caller().pid
            yield caller().pid

    server = make_server(Who)
    with Peer(server) as peer:
        peer.send(call(1, "Who"))
        got = replies(server, peer, 3, desk)
        assert [message[2] for message in got[:2]] == [os.getpid()] * 2
    with pytest.raises(UsageError):
        caller()


@dataclass
class Ticks:
    """An asynchronous generator."""

    to: int

    async def process(self, ctx: Desk) -> AsyncIterator[int]:
        try:
            for number in range(self.to):
                await asyncio.sleep(0)
                ctx.log.append(number)
                yield number
            if self.to == 3:
                raise CommandError("three", "is too many")
        finally:
            ctx.log.append("closed")


def test_without_a_loop_an_asynchronous_generator_is_refused(make_server, desk):
    server = make_server(Ticks)
    with Peer(server) as peer:
        peer.send(call(1, "Ticks", to=2))
        [[_, kind, body]] = replies(server, peer, 1, desk)
        assert (kind, body["code"]) == (1, "internal")
        assert "asyncio_loop" in body["message"]


def test_a_loop_that_does_not_take_an_asynchronous_generator(make_server, desk):
    def spawn(_):
        raise RuntimeError("the loop has ended")

    server = make_server(Ticks)
    server.spawn, server.make_event = spawn, asyncio.Event
    with Peer(server) as peer:
        peer.send(call(1, "Ticks", to=2))
        [[_, kind, body]] = replies(server, peer, 1, desk)
        assert (kind, body["message"]) == (1, "Ticks raised RuntimeError: the loop has ended")
    gc.collect()  # and no warning that something was never awaited


def test_an_asynchronous_generator(make_server, desk):
    server = make_server([Ticks, Now])

    async def replies(peer, count):
        got = []
        while len(got) < count:
            server.poll(desk)
            await asyncio.sleep(0)
            got.extend(peer.received())
        return got

    async def until(condition):
        async with asyncio.timeout(20):
            while not condition():
                server.poll(desk)
                await asyncio.sleep(0)

    async def main() -> None:
        server.spawn = asyncio.get_running_loop().create_task
        server.make_event = asyncio.Event
        with Peer(server) as peer:
            peer.send(call(1, "Ticks", to=2))
            assert await replies(peer, 3) == [[1, 2, 0], [1, 2, 1], [1, 0, None]]
            assert desk.log == [0, 1, "closed"]
            peer.send(call(2, "Ticks", to=3))
            *_, error = await replies(peer, 4)
            assert error == [2, 1, {"code": "three", "message": "is too many"}]
            desk.log.clear()
            peer.send(call(3, "Ticks", to=10**9))
            await until(lambda: 5 in desk.log)
            peer.send(encode([3]))
            await until(lambda: "closed" in desk.log)
            # One piece ahead at most: a reader that does not read stops it.
            desk.log.clear()
            peer.received()
            settle(server, desk)
            peer.send(call(4, "Ticks", to=10**9))
        await until(lambda: not server.stats()["clients"])
        await until(lambda: not server.stats()["in_flight"])
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_streams_share_max_in_flight(make_server, desk):
    server = make_server(COMMANDS, max_in_flight=2)
    with Peer(server) as peer:
        peer.send(*(call(n, "Forever") for n in range(3)))
        got = []
        serve_until(
            server,
            lambda: got.extend(peer.received()) or any(m[1] == 1 for m in got),
            desk,
        )
        [error] = [message for message in got if message[1] == 1]
        assert (error[0], error[2]["code"]) == (2, "busy")
    server.close()


# ---------------------------------------------------------------------------------------------
# A generator's `finally` does as it likes


@dataclass
class Tidy:
    """Does what the test says at its end."""

    def process(self, ctx: Desk) -> Generator[Turn, Any, None]:
        try:
            yield Turn(Future())
        finally:
            ctx.do()


@pytest.mark.parametrize("frame", [call(1, "Tidy"), encode([1, "Tidy", {}, {"timeout": 0.05}])])
def test_a_poll_inside_finally(make_server, desk, caplog, frame):
    """Cancelled by its client or by its time limit, it polls: others are served, it ends once."""
    server = make_server([Tidy, Now])
    with Peer(server) as peer, Peer(server) as other:

        def poll():
            other.send(call(7, "Now", value=1))
            peer.send(encode([1]))  # what is being ended is told to end once more
            assert server.poll(desk) == 1

        desk.do = poll
        peer.send(frame)
        serve_until(server, lambda: server.stats()["in_flight"], desk)
        if frame == call(1, "Tidy"):
            peer.send(encode([1]))
        [[call_id, kind, body]] = replies(server, peer, 1, desk)
        assert (call_id, kind, body["code"]) == (1, 1, "cancelled")
        assert replies(server, other, 1, desk) == [[7, 0, 1]]
        peer.send(call(1, "Now", value=2))
        assert replies(server, peer, 1, desk) == [[1, 0, 2]]
        settle(server, desk)
    assert not caplog.records


def test_finally_closes_the_server_when_it_is_cancelled(make_server, desk):
    server = make_server([Tidy])
    desk.do = server.close
    with Peer(server) as peer:
        peer.send(call(1, "Tidy"))
        serve_until(server, lambda: server.stats()["in_flight"], desk)
        peer.send(encode([1]))
        server.poll(desk)
        first, farewell = peer.received()
        assert (first[0], first[2]["code"]) == (1, "cancelled")
        assert farewell[2]["code"] == "shutting-down"


def test_finally_closes_the_server_that_is_closing(make_server, desk, caplog):
    server = make_server([Tidy])
    desk.do = server.close
    with Peer(server) as peer:
        peer.send(call(1, "Tidy"))
        serve_until(server, lambda: server.stats()["in_flight"], desk)
        server.close()
    assert not caplog.records


def test_close_ends_all_though_each_is_interrupted(make_server, desk):
    server = make_server([Tidy])

    def do():
        desk.log.append("ended")
        raise KeyboardInterrupt

    desk.do = do
    with Peer(server) as peer:
        peer.send(*(call(number, "Tidy") for number in range(4)))
        serve_until(server, lambda: server.stats()["in_flight"] == 4, desk)
        with pytest.raises(KeyboardInterrupt):
            server.close()
    assert desk.log == ["ended"] * 4
    assert server.stats()["in_flight"] == 0


def test_nothing_is_kept_for_a_parked_stream_whose_time_is_over(server, desk):
    with Peer(server) as peer:
        peer.send(encode([1, "Forever", {"size": 60000}, {"timeout": 0.2}]))
        serve_until(server, lambda: server._jobs.parked, desk)
        serve_until(server, lambda: "closed" in desk.log, desk)
    settle(server, desk)
    assert server._jobs.parked == {}
