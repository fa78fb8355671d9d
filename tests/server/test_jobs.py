"""Answers that come later: futures of any kind, finished from any thread. Real sockets."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import logging
import math
import random
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import pytest
from harness import Peer, call, encode, readable, run_python, serve_until, settle
from twisted.internet.defer import Deferred

import ipcpoll
from ipcpoll import Client, CommandError, Limits, Server, caller
from ipcpoll._server.acceptor import Acceptor


@dataclass
class Desk:
    """The program: what it was asked and has not answered yet."""

    futures: list[Any] = field(default_factory=list)
    log: list[Any] = field(default_factory=list)
    make: Callable[[], Any] = Future
    do: Callable[[], Any] | None = None


@dataclass
class Ask:
    """Answered when the program says so."""

    value: int = 0

    def process(self, ctx: Desk) -> Future[int]:
        future = ctx.make()
        ctx.futures.append(future)
        return future


@dataclass
class AskTwisted:
    """The same with a Deferred."""

    def process(self, ctx: Desk) -> Deferred[int]:
        deferred: Deferred[int] = Deferred()
        ctx.futures.append(deferred)
        return deferred


@dataclass
class Now:
    """Answered at once."""

    value: int

    def process(self, ctx: Desk) -> int:
        ctx.log.append(self.value)
        if ctx.do is not None:
            ctx.do()
        return self.value


@dataclass
class Coro:
    """A coroutine, which needs a loop."""

    async def process(self, ctx: Desk) -> int:
        return 1


COMMANDS = [Ask, AskTwisted, Now, Coro]


@pytest.fixture
def socket_path(directory):
    return f"{directory}/late.sock"


@pytest.fixture
def desk():
    return Desk()


@pytest.fixture
def server(socket_path):
    with Server(socket_path, COMMANDS) as server:
        yield server


def replies(server, peer, count, desk):
    got = []
    serve_until(server, lambda: got.extend(peer.received()) or len(got) >= count, desk)
    assert len(got) == count
    return got


def start(server, peer, desk, *frames):
    """Send calls that are answered later, and let them begin."""
    peer.send(*frames)
    begun = len(desk.futures)
    serve_until(server, lambda: len(desk.futures) == begun + len(frames), desk)
    settle(server, desk)


# ---------------------------------------------------------------------------------------------
# Futures


def test_the_answer_goes_out_when_the_future_is_done(server, desk):
    with Peer(server) as peer:
        start(server, peer, desk, call(1, "Ask"))
        assert peer.received() == []
        assert server.stats()["in_flight"] == 1
        desk.futures[0].set_result(5)
        assert readable(server)
        assert replies(server, peer, 1, desk) == [[1, 0, 5]]
        settle(server, desk)
        assert server.stats()["in_flight"] == 0


def test_late_calls_that_wait_keep_the_descriptor_silent(server, desk):
    with Peer(server) as peer:
        start(server, peer, desk, *(call(n, "Ask") for n in range(100)))
        assert not readable(server, 0.2)
        assert server.poll(desk) == 0
        assert not server.pending
        for future in desk.futures:
            future.set_result(1)
        assert len(replies(server, peer, 100, desk)) == 100


def test_answers_overtake_each_other_and_plain_calls_go_on(server, desk):
    with Peer(server) as peer:
        start(server, peer, desk, call(1, "Ask"), call(2, "Ask"))
        peer.send(call(3, "Now", value=3))
        assert replies(server, peer, 1, desk) == [[3, 0, 3]]
        desk.futures[1].set_result(22)
        assert replies(server, peer, 1, desk) == [[2, 0, 22]]
        desk.futures[0].set_result(11)
        assert replies(server, peer, 1, desk) == [[1, 0, 11]]


def test_a_future_that_is_done_already_is_answered_in_the_same_poll(server, desk):
    def done():
        future = Future()
        future.set_result(4)
        return future

    desk.make = done
    with Peer(server) as peer:
        peer.send(call(1, "Ask"))
        server.poll(desk, max_seconds=60)
        assert peer.received() == [[1, 0, 4]]
        settle(server, desk)


def test_finished_from_another_thread(server, desk):
    with Peer(server) as peer, concurrent.futures.ThreadPoolExecutor(1) as pool:
        gate = threading.Event()
        desk.make = lambda: pool.submit(lambda: gate.wait() and 9)
        start(server, peer, desk, call(1, "Ask"))
        assert not readable(server)
        gate.set()
        assert readable(server, 20)
        assert replies(server, peer, 1, desk) == [[1, 0, 9]]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (CommandError("no-paper", "the printer is empty"), "no-paper", "the printer is empty"),
        (ValueError("bad"), "internal", "Ask raised ValueError: bad"),
        (SystemExit(3), "internal", "Ask raised SystemExit: 3"),
        (KeyboardInterrupt(), "internal", "Ask raised KeyboardInterrupt"),
        (asyncio.CancelledError(), "cancelled", "Ask was cancelled by the program"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_the_exception_of_a_future_is_the_calls_error(server, desk, error, code, words):
    with Peer(server) as peer:
        start(server, peer, desk, call(1, "Ask"))
        desk.futures[0].set_exception(error)
        [[call_id, kind, body]] = replies(server, peer, 1, desk)
        assert (call_id, kind, body["code"], body["message"]) == (1, 1, code, words)
        assert replies_now(server, peer, desk) == [[2, 0, 2]]


def replies_now(server, peer, desk):
    peer.send(call(2, "Now", value=2))
    return replies(server, peer, 1, desk)


def test_a_future_that_the_program_cancels(server, desk):
    with Peer(server) as peer:
        start(server, peer, desk, call(1, "Ask"))
        desk.futures[0].cancel()
        [[_, kind, body]] = replies(server, peer, 1, desk)
        assert (kind, body["code"]) == (1, "cancelled")


def test_an_answer_that_is_not_what_was_promised(server, desk, caplog):
    with Peer(server) as peer:
        start(server, peer, desk, call(1, "Ask"))
        desk.futures[0].set_result("five")
        [[_, kind, body]] = replies(server, peer, 1, desk)
        assert (kind, body["code"]) == (1, "internal")
        assert "is not what its annotation promises" in body["message"]
    assert "the answer of Ask can't be sent" in caplog.text


def test_a_command_that_breaks_its_promise(server, desk):
    desk.make = lambda: 5
    with Peer(server) as peer:
        peer.send(call(1, "Ask"))
        [[_, kind, body]] = replies(server, peer, 1, desk)
        assert (kind, body["code"]) == (1, "internal")
        assert "Ask.process returned int, which is not what its annotation promises" in str(body)


def test_a_future_of_any_make_with_the_two_methods(server, desk):
    class Promise:
        def add_done_callback(self, function):
            self.tell = function

        def result(self):
            return 8

    desk.make = Promise
    with Peer(server) as peer:
        start(server, peer, desk, call(1, "Ask"))
        desk.futures[0].tell(None)
        assert replies(server, peer, 1, desk) == [[1, 0, 8]]


def test_poll_takes_many_finished_calls_within_its_budget(server, desk):
    with Peer(server) as peer:
        start(server, peer, desk, *(call(n, "Ask") for n in range(20)))
        for future in desk.futures:
            future.set_result(1)
        assert server.poll(desk, max_commands=3, max_seconds=60) == 3
        assert server.pending
        assert readable(server)
        assert len(peer.received()) == 3
        assert server.poll(desk, max_commands=0, max_seconds=60) == 0
        assert readable(server)
        assert len(replies(server, peer, 17, desk)) == 17
        settle(server, desk)


# ---------------------------------------------------------------------------------------------
# Cancelling


def test_a_cancel_cancels_the_future_and_is_answered(server, desk):
    with Peer(server) as peer:
        start(server, peer, desk, call(1, "Ask"), call(2, "Ask"))
        peer.send(encode([1]))
        [[call_id, kind, body]] = replies(server, peer, 1, desk)
        assert (call_id, kind, body["code"]) == (1, 1, "cancelled")
        assert [future.cancelled() for future in desk.futures] == [True, False]
        desk.futures[1].set_result(2)
        assert replies(server, peer, 1, desk) == [[2, 0, 2]]


def test_a_cancel_wakes_nobody(server, desk):
    """The callbacks of a cancelled future run inside the poll that cancels it."""
    with Peer(server) as peer:
        start(server, peer, desk, call(1, "Ask"))
        peer.send(encode([1]))
        assert server.poll(desk) == 1
        assert not readable(server)


def test_a_cancel_that_crosses_the_answer_is_ignored(server, desk):
    with Peer(server) as peer:
        start(server, peer, desk, call(1, "Ask"))
        desk.futures[0].set_result(5)
        assert replies(server, peer, 1, desk) == [[1, 0, 5]]
        peer.send(encode([1]))
        assert replies_now(server, peer, desk) == [[2, 0, 2]]


def test_a_cancel_in_the_same_poll_as_the_result(server, desk, monkeypatch):
    """The result was first: it is what the call is answered, once."""
    monkeypatch.setattr(
        "ipcpoll._server.scheduler._LOOK_SECONDS", math.inf
    )  # or a slow machine's poll sees it
    with Peer(server) as peer:
        start(server, peer, desk, call(1, "Ask"))
        desk.do = lambda: desk.futures[0].set_result(5)
        peer.send(call(2, "Now", value=2), encode([1]))
        assert server.poll(desk, max_seconds=60) == 2
        settle(server, desk)
        assert peer.received() == [[2, 0, 2], [1, 0, 5]]
        peer.send(call(1, "Now", value=3))
        desk.do = None
        assert replies(server, peer, 1, desk) == [[1, 0, 3]]


def test_a_cancel_that_comes_behind_the_result(server, desk):
    """The future is done, and neither its answer nor the cancel had its turn."""
    with Peer(server) as peer:
        start(server, peer, desk, call(1, "Ask"))
        peer.send(encode([1]))
        desk.futures[0].set_result(5)
        assert replies(server, peer, 1, desk) == [[1, 0, 5]]
        assert replies_now(server, peer, desk) == [[2, 0, 2]]


def test_the_id_can_be_used_again_after_a_cancel(server, desk):
    with Peer(server) as peer:
        start(server, peer, desk, call(1, "Ask"))
        peer.send(encode([1]))
        replies(server, peer, 1, desk)
        start(server, peer, desk, call(1, "Ask"))
        desk.futures[1].set_result(6)
        assert replies(server, peer, 1, desk) == [[1, 0, 6]]


def test_a_client_that_goes_cancels_its_futures(server, desk):
    with Peer(server) as other:
        start(server, other, desk, call(1, "Ask"))
        with Peer(server) as peer:
            start(server, peer, desk, call(1, "Ask"), call(2, "Ask"))
        serve_until(server, lambda: all(f.cancelled() for f in desk.futures[1:]), desk)
        settle(server, desk)
        assert not desk.futures[0].done()
        assert server.stats()["in_flight"] == 1
        assert server.stats()["clients"] == 1


def test_a_half_closed_client_gets_its_late_answers(server, desk):
    with Peer(server) as peer:
        start(server, peer, desk, call(1, "Ask"))
        peer.socket.shutdown(1)  # SHUT_WR: it has finished asking
        settle(server, desk)
        assert not desk.futures[0].done()
        desk.futures[0].set_result(3)
        assert replies(server, peer, 1, desk) == [[1, 0, 3]]
        serve_until(server, lambda: peer.received() or peer.ended, desk)


def test_a_thread_that_finishes_a_cancelled_call_is_not_heard(server, desk):
    """A future that runs can't be cancelled: it ends when its thread says so, and nobody cares."""
    with Peer(server) as peer:
        start(server, peer, desk, call(1, "Ask"))
        desk.futures[0].set_running_or_notify_cancel()
        peer.send(encode([1]))
        replies(server, peer, 1, desk)
        desk.futures[0].set_result(5)
        settle(server, desk)
        assert peer.received() == []


@pytest.mark.parametrize("fails", [False, True])
def test_a_deferred_that_is_cancelled_is_no_unhandled_error(server, desk, fails):
    from twisted.logger import globalLogPublisher

    events: list[Any] = []
    globalLogPublisher.addObserver(events.append)
    try:
        with Peer(server) as peer:
            start(server, peer, desk, call(1, "AskTwisted"), call(2, "AskTwisted"))
            if fails:
                desk.futures[0].errback(RuntimeError("no"))
                words = "AskTwisted raised RuntimeError: no"
            else:
                peer.send(encode([1]))
                words = "the call was cancelled; it had begun, and may have run"
            [[_, kind, body]] = replies(server, peer, 1, desk)
            assert (kind, body["message"]) == (1, words)
            desk.futures[1].callback(4)
            assert replies(server, peer, 1, desk) == [[2, 0, 4]]
            settle(server, desk)
        desk.futures.clear()
        gc.collect()
        assert not [event for event in events if event.get("log_failure")]
    finally:
        globalLogPublisher.removeObserver(events.append)


def test_what_giving_up_raises_is_logged(server, desk, caplog):
    class Stubborn(Future):
        def cancel(self):
            raise RuntimeError("I will not")

    desk.make = Stubborn
    with Peer(server) as peer:
        start(server, peer, desk, call(1, "Ask"))
        peer.send(encode([1]))
        [[_, kind, body]] = replies(server, peer, 1, desk)
        assert (kind, body["code"]) == (1, "cancelled")
        assert replies_now(server, peer, desk) == [[2, 0, 2]]
    assert "the work of Ask could not be ended: RuntimeError: I will not" in caplog.text


# ---------------------------------------------------------------------------------------------
# Limits and time


def test_the_arguments_are_not_kept(server, desk):
    """They may have 256 KiB, for each of so many calls."""
    with Peer(server) as peer:
        start(server, peer, desk, call(1, "Ask", value=77))
        [connection] = server._clients.connections.values()
        assert connection.jobs[1].call.fields == {}


def test_max_in_flight_then_busy(socket_path, desk):
    with (
        Server(socket_path, COMMANDS, limits=Limits(max_in_flight=3)) as server,
        Peer(server) as peer,
        Peer(server) as other,
    ):
        start(server, peer, desk, *(call(n, "Ask") for n in range(3)))
        peer.send(call(3, "Ask"))
        [[call_id, kind, body]] = replies(server, peer, 1, desk)
        assert (call_id, kind, body["code"]) == (3, 1, "busy")
        assert "3 calls are in flight" in body["message"]
        assert len(desk.futures) == 3
        peer.send(call(4, "Now", value=1), call(5, "Nothing"))
        plain, unknown = replies(server, peer, 2, desk)
        assert plain == [4, 0, 1]
        assert unknown[2]["code"] == "unknown-command"
        start(server, other, desk, call(1, "Ask"))  # each connection has its own
        desk.futures[0].set_result(0)
        replies(server, peer, 1, desk)
        start(server, peer, desk, call(6, "Ask"))


def test_max_in_flight_for_notifications_of_all(socket_path, desk, caplog):
    with (
        Server(socket_path, COMMANDS, limits=Limits(max_in_flight=2)) as server,
        Peer(server) as peer,
        Peer(server) as other,
    ):
        start(server, peer, desk, call(None, "Ask"))
        start(server, other, desk, call(None, "Ask"))
        peer.send(call(None, "Ask"))
        settle(server, desk)
        assert len(desk.futures) == 2
        assert "the notification Ask failed: Busy" in caplog.text
        desk.futures[0].set_result(0)
        settle(server, desk)
        start(server, peer, desk, call(None, "Ask"))


def test_a_notification_goes_on_when_its_client_has_gone(server, desk):
    with Peer(server) as peer:
        start(server, peer, desk, call(None, "Ask"))
    settle(server, desk)
    assert server.stats()["clients"] == 0
    assert not desk.futures[0].done()
    assert server.stats()["in_flight"] == 1
    desk.futures[0].set_result(1)
    settle(server, desk)
    assert server.stats()["in_flight"] == 0


def test_the_error_of_a_late_notification_is_logged(server, desk, caplog):
    with Peer(server) as peer:
        start(server, peer, desk, call(None, "Ask"))
        desk.futures[0].set_exception(ValueError("nobody hears me"))
        settle(server, desk)
    assert "ValueError: nobody hears me" in caplog.text


def test_the_time_limit_of_a_call_is_kept_by_the_server(server, desk):
    with Peer(server) as peer:
        start(server, peer, desk, encode([1, "Ask", {}, {"timeout": 0.05}]), call(2, "Ask"))
        assert server.next_deadline() is not None
        [[call_id, kind, body]] = replies(server, peer, 1, desk)
        assert (call_id, kind, body["code"]) == (1, 1, "cancelled")
        assert body["message"] == "the call's time limit of 0.05 s passed before its answer"
        assert [future.cancelled() for future in desk.futures] == [True, False]
        settle(server, desk)
        assert server.next_deadline() is None


@pytest.mark.parametrize("seconds", [1e10, 1e300, 2**64 - 1])
def test_a_time_limit_beyond_all_time(server, desk, seconds):
    with Peer(server) as peer:
        start(server, peer, desk, encode([1, "Ask", {}, {"timeout": seconds}]))
        start(server, peer, desk, encode([2, "Ask", {}, {"timeout": 0.05}]))
        [[call_id, _, body]] = replies(server, peer, 1, desk)
        assert (call_id, body["code"]) == (2, "cancelled")
        settle(server, desk)
        desk.futures[0].set_result(5)
        assert replies(server, peer, 1, desk) == [[1, 0, 5]]


def test_the_time_limit_of_a_call_that_was_answered_wakes_nobody(server, desk):
    with Peer(server) as peer:
        start(server, peer, desk, encode([1, "Ask", {}, {"timeout": 0.1}]))
        desk.futures[0].set_result(1)
        assert replies(server, peer, 1, desk) == [[1, 0, 1]]
        settle(server, desk)
        assert not readable(server, 0.15)
        assert server.next_deadline() is None


# ---------------------------------------------------------------------------------------------
# Coroutines


def test_without_a_loop_a_coroutine_is_refused_and_closed(server, desk):
    with Peer(server) as peer:
        peer.send(call(1, "Coro"))
        [[_, kind, body]] = replies(server, peer, 1, desk)
        assert (kind, body["code"]) == (1, "internal")
        for name in ("asyncio_loop", "trio_loop", "twisted_loop"):
            assert name in body["message"]
    gc.collect()  # a coroutine that was never awaited would warn, which is an error here


class Stepper:
    """As little of a loop as can run a coroutine: it is stepped by hand."""

    def __init__(self) -> None:
        self.tasks: list[tuple[Coroutine[Any, Any, Any], Future[Any]]] = []

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        future: Future[Any] = Future()
        self.tasks.append((coroutine, future))
        return future

    def step(self) -> None:
        for coroutine, future in self.tasks:
            if future.cancelled():
                coroutine.close()
                continue
            try:
                coroutine.send(None)
            except StopIteration as end:
                future.set_result(end.value)
            except Exception as error:
                future.set_exception(error)


def test_spawn_runs_a_coroutine(server, desk):
    stepper = Stepper()
    server.spawn = stepper.spawn
    with Peer(server) as peer:
        peer.send(call(1, "Coro"))
        settle(server, desk)
        assert peer.received() == []
        stepper.step()
        assert replies(server, peer, 1, desk) == [[1, 0, 1]]


def test_a_spawn_that_raises(server, desk):
    def spawn(coroutine):
        raise RuntimeError("the loop has ended")

    server.spawn = spawn
    with Peer(server) as peer:
        peer.send(call(1, "Coro"))
        [[_, kind, body]] = replies(server, peer, 1, desk)
        assert (kind, body["code"]) == (1, "internal")
        assert "the loop has ended" in body["message"]


class Soon:
    """Can be awaited, and is neither a future nor a coroutine."""

    def __await__(self) -> Generator[Any, Any, int]:
        yield from ()
        return 7


@dataclass
class Wait:
    def process(self, ctx: Any) -> Awaitable[int]:
        return Soon()


def test_whatever_can_be_awaited(socket_path, desk):
    stepper = Stepper()
    with Server(socket_path, Wait) as server, Peer(server) as peer:
        server.spawn = stepper.spawn
        peer.send(call(1, "Wait"))
        settle(server, desk)
        stepper.step()
        assert replies(server, peer, 1, desk) == [[1, 0, 7]]


@dataclass
class Who:
    """Who asks, as a coroutine knows it."""

    async def process(self, ctx: Any) -> int:
        return caller().pid


def test_caller_is_known_after_an_await(socket_path):
    import os

    async def main() -> None:
        with Server(socket_path, Who) as server:
            loop = asyncio.get_running_loop()
            server.spawn = loop.create_task
            with Peer(server) as peer:
                peer.send(call(1, "Who"))
                got: list[Any] = []
                while not got:
                    server.poll(None)
                    await asyncio.sleep(0)
                    got = peer.received()
                assert got == [[1, 0, os.getpid()]]
        with pytest.raises(ipcpoll.UsageError):
            caller()

    asyncio.run(main())


# ---------------------------------------------------------------------------------------------
# Closing


def test_close_cancels_what_is_in_flight_and_says_so(server, desk):
    with Peer(server) as peer:
        start(server, peer, desk, call(1, "Ask"), call(2, "Ask"), call(None, "Ask"))
        server.close()
        *told, farewell = peer.received()
        for call_id, (told_id, kind, body) in zip((1, 2), told, strict=True):
            assert (told_id, kind, body["code"]) == (call_id, 1, "shutting-down")
            assert body["data"] == {"began": True}
        assert farewell[0] is None
        assert "data" not in farewell[2]
        assert all(future.cancelled() for future in desk.futures)
        desk.futures.clear()


def test_close_sends_the_answers_that_are_ready(server, desk):
    """How "answer, then stop" is written with a future."""
    with Peer(server) as peer:
        start(server, peer, desk, call(1, "Ask"), call(2, "Ask"))
        desk.futures[0].set_result(5)
        server.close()
        answer, other, farewell = peer.received()
        assert answer == [1, 0, 5]
        assert (other[0], other[2]["code"]) == (2, "shutting-down")
        assert (farewell[0], farewell[2]["code"]) == (None, "shutting-down")


def test_close_sends_an_answer_that_waits_for_a_command_of_its_client(socket_path, desk):
    @dataclass
    class Stop:
        def process(self, ctx: Desk) -> None:
            ctx.futures[0].set_result(5)
            server.poll(ctx)
            server.close()

    with Server(socket_path, [Ask, Stop]) as server, Peer(server) as peer:
        start(server, peer, desk, call(1, "Ask"))
        peer.send(call(2, "Stop"))
        server.poll(desk)
        late, own, farewell = peer.received()
        assert (late, own) == ([1, 0, 5], [2, 0, None])
        assert farewell[2]["code"] == "shutting-down"


def test_a_command_that_closes_and_answers_later(socket_path):
    futures: list[Future[int]] = []

    @dataclass
    class Stop:
        def process(self, ctx: Server[Any]) -> Future[int]:
            ctx.close()
            futures.append(Future())
            return futures[0]

    with Server(socket_path, Stop) as server, Peer(server) as peer:
        peer.send(call(1, "Stop"))
        server.poll(server, max_commands=1)  # there is no turn after it
        assert peer.received() == []
        assert server.stats()["clients"] == 1
        futures[0].set_result(5)
        answer, farewell = peer.received()
        assert answer == [1, 0, 5]
        assert (farewell[0], farewell[2]["code"]) == (None, "shutting-down")
        assert peer.ended
        assert server.stats()["clients"] == server.stats()["in_flight"] == 0


def test_finished_after_close_is_not_heard(server, desk):
    with Peer(server) as peer:
        start(server, peer, desk, call(1, "Ask"))
        desk.futures[0].set_running_or_notify_cancel()
        server.close()
        desk.futures[0].set_result(5)


def test_nothing_is_left_when_a_late_call_has_ended(server, desk):
    ends = {
        "answered": lambda peer: desk.futures[-1].set_result(1),
        "failed": lambda peer: desk.futures[-1].set_exception(ValueError()),
        "cancelled": lambda peer: peer.send(encode([1])),
        "gone": lambda peer: peer.close(),
    }
    logging.disable(logging.CRITICAL)
    try:
        for end in ends.values():
            with Peer(server) as peer:
                start(server, peer, desk, call(1, "Ask"))
                [connection] = [
                    weakref.ref(c.protocol) for c in server._clients.connections.values()
                ]
                future = weakref.ref(desk.futures[-1])
                end(peer)
                serve_until(server, lambda: not server.stats()["in_flight"], desk)
            settle(server, desk)
            desk.futures.clear()
            gc.collect()
            assert future() is None
            assert connection() is None
    finally:
        logging.disable(logging.NOTSET)


# ---------------------------------------------------------------------------------------------
# Many


def test_1000_late_calls_50_clients_8_threads_and_deaths(server, desk):
    """Each living client gets exactly its answers, each dead one's futures are cancelled."""
    chance = random.Random(6)
    peers = [Peer(server) for _ in range(50)]
    for peer in peers:
        peer.send(*(call(n, "Ask", value=n) for n in range(20)))
    serve_until(server, lambda: len(desk.futures) == 1000, desk)
    settle(server, desk)
    by_connection: dict[int, dict[int, Any]] = {}
    for connection in server._clients.connections.values():
        by_connection[connection.fd] = {
            call_id: late.work._future for call_id, late in connection.jobs.items()
        }
    watched = [weakref.ref(c.protocol) for c in server._clients.connections.values()]
    futures = list(desk.futures)
    references = [weakref.ref(future) for future in futures]
    chance.shuffle(futures)
    dead = set(chance.sample(range(50), 15))
    barrier = threading.Barrier(9)

    def finish(mine: list[Any]) -> None:
        barrier.wait()
        for future in mine:
            if future.set_running_or_notify_cancel():
                future.set_result(id(future) % 1000)

    threads = [threading.Thread(target=finish, args=(futures[n::8],)) for n in range(8)]
    for thread in threads:
        thread.start()
    barrier.wait()
    got: dict[int, list[Any]] = {n: [] for n in range(50)}
    doomed = list(dead)

    def all_there() -> bool:
        if doomed:
            peers[doomed.pop()].close()
        for n, peer in enumerate(peers):
            if n not in dead:
                got[n].extend(peer.received())
        return not doomed and all(len(got[n]) == 20 for n in range(50) if n not in dead)

    serve_until(server, all_there, desk)
    for thread in threads:
        thread.join()
    settle(server, desk)
    for n in range(50):
        if n not in dead:
            assert sorted(message[0] for message in got[n]) == list(range(20))
            assert all(message[1] == 0 for message in got[n])
    assert server.stats()["in_flight"] == 0
    assert server.stats()["clients"] == 35
    assert all(future.done() for future in futures)
    for peer in peers:
        peer.close()
    settle(server, desk)
    assert server.stats()["clients"] == 0
    desk.futures.clear()
    del futures, by_connection, threads, connection
    gc.collect()
    assert [r for r in references if r() is not None] == []
    assert [r for r in watched if r() is not None] == []


def test_the_client_gets_a_late_answer(socket_path):
    program = f"""
import threading
from concurrent.futures import Future
from dataclasses import dataclass
import ipcpoll
from ipcpoll.adapters import select_loop

@dataclass
class Ask:
    value: int
    def process(self, ctx) -> Future[int]:
        future = Future()
        threading.Timer(0.01, future.set_result, [6]).start()
        return future

with ipcpoll.Server({socket_path!r}, Ask) as server:
    print("ready", flush=True)
    select_loop.run(server, None)
"""
    process = run_python(program)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with Client(socket_path) as client:
            assert client.call(Ask()) == 6
            assert list(client.map(Ask() for _ in range(50))) == [6] * 50
    finally:
        process.kill()
        process.communicate()


# ---------------------------------------------------------------------------------------------
# No wake-up is lost


def test_finished_while_a_connection_is_accepted(server, desk, monkeypatch):
    """The look behind the accept silences the wake-up of what was told in between."""
    with Peer(server) as peer:
        start(server, peer, desk, call(1, "Ask"))
        accept = Acceptor.accept

        def finish_and_accept(acceptor, *bounds):
            desk.futures[0].set_result(5)
            return accept(acceptor, *bounds)

        with monkeypatch.context() as patch, Peer(server):
            patch.setattr(Acceptor, "accept", finish_and_accept)
            server.poll(desk)
        assert replies(server, peer, 1, desk) == [[1, 0, 5]]


def test_finished_while_polls_are_nested_too_deeply(socket_path, desk):
    """The innermost poll silences everything, and must not forget it."""

    @dataclass
    class Finish:
        def process(self, ctx: Desk) -> None:
            ctx.futures[0].set_result(5)
            assert server.poll(ctx) == 0

    server = Server(socket_path, [Ask, Finish], limits=Limits(max_nested_polls=1))
    with server, Peer(server) as peer, Peer(server) as other:
        start(server, peer, desk, call(1, "Ask"))
        other.send(call(1, "Finish"))
        assert replies(server, other, 1, desk) == [[1, 0, None]]
        assert replies(server, peer, 1, desk) == [[1, 0, 5]]
