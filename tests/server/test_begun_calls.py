"""Calls that had begun, and calls that had not: the error of each, and who may run one again.

`shutting-down`, `cancelled` and `busy` say "nothing of it was run", unless their data holds
``"began": true``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Generator
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from harness import (
    COMMANDS,
    PATIENCE,
    Peer,
    answers,
    call,
    encode,
    readable,
    serve_until,
    settle,
    wait_until,
)

from ipcpoll import (
    Busy,
    Cancelled,
    Client,
    CommandError,
    Limits,
    Server,
    ShuttingDown,
    Subscription,
    Topic,
    Turn,
    send,
    serve_or_send,
)
from ipcpoll.adapters import asyncio_loop
from ipcpoll.errors import as_begun, error_from_wire

BEGAN = {"began": True}


@dataclass
class Desk:
    log: list[Any] = field(default_factory=list)
    futures: list[Future[int]] = field(default_factory=list)
    topic: Topic[int] = field(default_factory=Topic[int])
    server: Server[Any] | None = None
    name: str = ""
    do: Any = None


@dataclass
class Ask:
    def process(self, ctx: Desk) -> Future[int]:
        ctx.log.append(ctx.name)
        ctx.futures.append(Future())
        return ctx.futures[-1]


@dataclass
class Wait:
    def process(self, ctx: Desk) -> Generator[Turn, Any, int]:
        ctx.log.append(ctx.name)
        yield Turn(Future())
        return 0


@dataclass
class Watch:
    def process(self, ctx: Desk) -> Subscription[int]:
        ctx.log.append(ctx.name)
        return ctx.topic.subscribe()


@dataclass
class Sleep:
    async def process(self, ctx: Desk) -> int:
        ctx.log.append(ctx.name)
        await asyncio.sleep(PATIENCE)
        return 0


@dataclass
class Now:
    def process(self, ctx: Desk) -> int:
        ctx.log.append(ctx.name)
        return 7


LATE = [Ask, Wait, Watch]


@pytest.fixture
def desk():
    return Desk()


def begin(server, desk, count):
    """Serve until so many calls are in flight."""
    serve_until(server, lambda: server.stats()["in_flight"] == count, desk)


# ---------------------------------------------------------------------------------------------
# On the wire


@pytest.mark.parametrize("command", LATE)
def test_close_tells_apart_what_had_begun_and_what_had_not(make_server, connect, desk, command):
    server = make_server([command, Now])
    peer = connect(server)
    peer.send(call(1, command.__name__), call(2, command.__name__))
    begin(server, desk, 2)
    peer.send(call(3, "Now"))
    server.close()
    *told, farewell = peer.received()
    assert [(call_id, kind, body["code"]) for call_id, kind, body in told] == [
        (1, 1, "shutting-down"),
        (2, 1, "shutting-down"),
    ]
    assert all(body["data"] == BEGAN for _, _, body in told)
    assert all("had begun" in body["message"] for _, _, body in told)
    assert farewell[:2] == [None, 1]
    assert "data" not in farewell[2]
    assert peer.ended
    assert desk.log == ["", ""], "the third was not run"


def test_close_inside_a_command_tells_the_late_calls_of_the_same_client(make_server, connect, desk):
    """They are given up long before the farewell behind the command's own answer."""

    @dataclass
    class Stop:
        def process(self, ctx: Desk) -> int:
            server.close()
            return 5

    server = make_server([Ask, Now, Stop])
    peer = connect(server)
    peer.send(call(1, "Ask"))
    begin(server, desk, 1)
    peer.send(call(2, "Stop"), call(3, "Now"))
    server.poll(desk)
    late, own, farewell = peer.received()
    assert (late[0], late[2]["code"], late[2]["data"]) == (1, "shutting-down", BEGAN)
    assert own == [2, 0, 5]
    assert (farewell[0], farewell[2].get("data")) == (None, None)
    assert desk.log == [""]


def test_cancelled_before_its_turn_and_in_the_midst(make_server, connect, desk):
    server = make_server([*LATE, Now])
    peer = connect(server)
    peer.send(call(1, "Ask"), call(2, "Now"), encode([2]))
    begin(server, desk, 1)
    [before] = answers(server, peer, 1, desk)
    assert (before[0], before[2]["code"], before[2].get("data")) == (2, "cancelled", None)
    peer.send(encode([1]))
    [within] = answers(server, peer, 1, desk)
    assert (within[0], within[2]["code"], within[2]["data"]) == (1, "cancelled", BEGAN)


def test_time_limit_before_its_turn_and_in_the_midst(make_server, connect, desk):
    server = make_server([*LATE, Now])
    peer = connect(server)
    peer.send(encode([1, "Wait", {}, {"timeout": 0.01}]))
    begin(server, desk, 1)
    [within] = answers(server, peer, 1, desk)
    assert (within[2]["code"], within[2]["data"]) == ("cancelled", BEGAN)
    server._round._turns._hub = SimpleNamespace(clock=lambda: server.now)
    desk.log.clear()
    peer.send(encode([2, "Now", {}, {"timeout": 0}]))
    server.now = 1e12  # long after it was read
    [before] = answers(server, peer, 1, desk)
    assert (before[2]["code"], before[2].get("data")) == ("cancelled", None)
    assert desk.log == []


def test_future_that_the_program_cancels_had_begun(make_server, connect, desk):
    server = make_server(LATE)
    peer = connect(server)
    peer.send(call(1, "Ask"))
    begin(server, desk, 1)
    desk.futures[0].cancel()
    [told] = answers(server, peer, 1, desk)
    assert (told[2]["code"], told[2]["data"]) == ("cancelled", BEGAN)


def test_evicted_client_is_told_which_of_its_calls_had_begun(make_server, connect, desk):
    server = make_server([*LATE, *COMMANDS], max_buffered=100_000)
    peer = connect(server)
    peer.send(call(1, "Ask"))
    begin(server, desk, 1)
    half = call(2, "Take", data=bytes(150_000))[:-1]
    peer.socket.setblocking(True)
    sender = threading.Thread(target=lambda: peer.socket.sendall(half))
    sender.start()
    serve_until(server, lambda: server.stats()["evicted"], desk)
    sender.join()
    peer.socket.setblocking(False)
    late, rest = peer.received()
    assert (late[0], late[2]["code"], late[2]["data"]) == (1, "busy", BEGAN)
    assert (rest[0], rest[2]["code"], rest[2].get("data")) == (None, "busy", None)
    assert desk.futures[0].cancelled() or server.pending


def test_client_that_is_turned_away_has_begun_nothing(make_server, connect, desk):
    server = make_server([Ask], max_in_flight=1)
    peer = connect(server)
    peer.send(call(1, "Ask"), call(2, "Ask"))
    [busy] = answers(server, peer, 1, desk)
    assert (busy[0], busy[2]["code"], busy[2].get("data")) == (2, "busy", None)
    assert desk.log == [""]


@pytest.mark.parametrize("bad", [b"\xd8\x18\x5a\x7f\xff\xff\xff", b"\x00"])
def test_call_that_had_begun_before_a_frame_that_ends_the_connection(
    make_server, connect, desk, bad
):
    """What is said under null is about the frame; the call goes on, for whoever still reads."""
    server = make_server(LATE)
    peer = connect(server)
    peer.send(call(1, "Ask"))
    begin(server, desk, 1)
    peer.send(bad)
    [told] = answers(server, peer, 1, desk)
    assert (told[0], told[2]["code"]) == (None, "malformed" if bad == b"\x00" else "too-large")
    desk.futures[0].set_result(5)
    assert answers(server, peer, 1, desk) == [[1, 0, 5]]
    serve_until(server, lambda: not server.stats()["clients"], desk)


@pytest.mark.parametrize("code", ["cancelled", "shutting-down", "busy"])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("data", "told"),
    [
        (None, BEGAN),
        ({"why": 1}, {"why": 1, "began": True}),
        ({"began": False}, BEGAN),
        ([1], {"began": True, "data": [1]}),
    ],
)
def test_command_that_passes_on_what_was_said_of_another_call(
    make_server, connect, code, late, data, told
):
    """The code may mean that a call over there was not run; this one was."""

    @dataclass
    class Relay:
        def process(self, ctx: Any) -> Future[None]:
            error = error_from_wire(code, "said over there", data)
            if not late:
                raise error
            future: Future[None] = Future()
            future.set_exception(error)
            return future

    server = make_server([Relay])
    peer = connect(server)
    peer.send(call(1, "Relay"))
    [[call_id, kind, body]] = answers(server, peer, 1)
    assert (call_id, kind) == (1, 1)
    assert body == {"code": code, "message": "said over there", "data": told}


def test_other_codes_are_passed_on_as_they_are():
    for code in ("internal", "no-such-level", 5, None):
        error = CommandError(code, "why", [1])  # type: ignore[arg-type]
        assert as_begun(error) is error
    assert as_begun(Cancelled("why", {"began": True})).data == BEGAN


@pytest.mark.parametrize("kind", [Cancelled, ShuttingDown, Busy])
def test_began_is_read_from_the_data(kind):
    assert kind.of_one_that_began("why").began
    for data in (None, {}, {"began": False}, {"began": 1}, ["began"], "began", {"other": True}):
        assert not kind("why", data).began


def test_old_clients_can_read_it(make_server, connect, desk):
    """An error has `code`, `message` and maybe `data`, as before; nothing is new on the wire."""
    server = make_server([Ask])
    peer = connect(server)
    peer.send(call(1, "Ask"))
    begin(server, desk, 1)
    server.close()
    told, _ = peer.received()
    assert told[:2] == [1, 1]
    assert set(told[2]) == {"code", "message", "data"}


# ---------------------------------------------------------------------------------------------
# In Python: nothing that had begun is run again


class Asking(threading.Thread):
    """Asks in a thread, and keeps what came of it."""

    def __init__(self, ask):
        super().__init__()
        self.ask, self.answer, self.error = ask, None, None
        self.start()

    def run(self):
        try:
            self.answer = self.ask()
        except BaseException as error:
            self.error = error

    def end(self):
        self.join(PATIENCE)
        assert not self.is_alive()
        return self.error if self.error is not None else self.answer


@pytest.mark.parametrize("command", LATE)
def test_serve_or_send_never_hands_over_what_had_begun(path, command):
    first, second = Desk(name="first"), Desk(name="second")
    with Server(path, [*LATE, Now]) as server:
        asking = Asking(lambda: serve_or_send(path, [*LATE, Now], command(), timeout=PATIENCE))
        begin(server, first, 1)
        server.close()
        with Server(path, [*LATE, Now]) as successor:
            error = asking.end()
            settle(successor, second)
    assert type(error) is ShuttingDown
    assert error.began
    assert first.log == ["first"]
    assert second.log == []


def test_serve_or_send_hands_over_what_had_not_begun(path):
    """Here to nobody: so this process becomes the server, and runs it."""
    desk = Desk()
    with Server(path, [*LATE, Now]) as server:
        asking = Asking(lambda: serve_or_send(path, [*LATE, Now], Now(), timeout=PATIENCE))
        wait_until(lambda: readable(server))
        serve_until(server, lambda: server.pending, desk, max_commands=0)
        server.close()
        successor, _ = asking.end()
        successor.close()
    assert desk.log == []


def test_serve_or_send_never_hands_over_a_coroutine_that_had_begun(path):
    first, second = Desk(name="first"), Desk(name="second")

    async def serve():
        with Server(path, [Sleep]) as server:
            asyncio_loop.attach(server, first)
            asking = Asking(lambda: serve_or_send(path, [Sleep], Sleep(), timeout=PATIENCE))
            while not first.log:
                await asyncio.sleep(0.001)
        return asking

    asking = asyncio.run(serve())
    with Server(path, [Sleep]) as successor:
        error = asking.end()
        settle(successor, second)
    assert type(error) is ShuttingDown
    assert error.began
    assert (first.log, second.log) == (["first"], [])


@pytest.mark.parametrize("command", LATE)
def test_send_says_that_it_had_begun(path, desk, command):
    with Server(path, LATE) as server:
        asking = Asking(lambda: send(command(), path, timeout=PATIENCE))
        begin(server, desk, 1)
        server.close()
        error = asking.end()
    assert type(error) is ShuttingDown
    assert error.began
    assert not error.told_to_all
    assert "had begun" in str(error)


def test_send_says_that_it_had_not_begun(path, desk):
    with Server(path, [Now]) as server:
        asking = Asking(lambda: send(Now(), path, timeout=PATIENCE))
        wait_until(lambda: readable(server))
        serve_until(server, lambda: server.pending, desk, max_commands=0)
        server.close()
        error = asking.end()
    assert type(error) is ShuttingDown
    assert not error.began
    assert desk.log == []


def test_stream_that_ran_says_that_it_had_begun(path, desk):
    with Server(path, LATE) as server, Client(path, timeout=PATIENCE) as client:
        stream = client.stream(Watch())
        begin(server, desk, 1)
        desk.topic.publish(1)
        settle(server, desk)
        assert next(stream) == 1
        server.close()
        with pytest.raises(ShuttingDown) as caught:
            next(stream)
    assert caught.value.began


def test_stream_that_may_run_twice_is_resumed(path, desk):
    """`resume` says so; a subscription has always begun."""
    with Client(path, timeout=PATIENCE) as client:
        with Server(path, LATE) as server:
            stream = client.stream(Watch(), resume=True)
            begin(server, desk, 1)
            desk.topic.publish(1)
            settle(server, desk)
            assert next(stream) == 1
        with Server(path, LATE) as server:
            asking = Asking(lambda: next(stream))
            begin(server, desk, 1)
            desk.topic.publish(2)
            serve_until(server, lambda: not asking.is_alive(), desk)
            assert asking.end() == 2
            assert stream.gaps == 1
            stream.close()
            settle(server, desk)


def test_submitted_calls_are_told_apart(path, desk):
    with Server(path, [Ask, Now]) as server, Client(path, timeout=PATIENCE) as client:
        begun = client.submit(Ask())
        begin(server, desk, 1)
        waiting = client.submit(Now())
        serve_until(server, lambda: server.pending, desk, max_commands=0)
        server.close()
        assert begun.exception().began
        assert not waiting.exception().began


# ---------------------------------------------------------------------------------------------
# Answer, then stop


@dataclass
class StopSoon:
    """Closes the server, and is answered later."""

    def process(self, ctx: Desk) -> Future[int]:
        assert ctx.server is not None
        ctx.server.close()
        ctx.futures.append(Future())
        return ctx.futures[-1]


@pytest.mark.parametrize("in_a_thread", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_future_of_a_command_that_closed_the_server(directory, desk, in_a_thread, fails):
    desk.server = server = Server(f"{directory}/s", [StopSoon, Now])
    with Peer(server) as peer:
        peer.send(call(1, "StopSoon"), call(2, "Now"))
        server.poll(desk)
        assert server.closed
        assert peer.received() == []
        finish = desk.futures[0].set_exception if fails else desk.futures[0].set_result
        value = ValueError("no") if fails else 5
        if in_a_thread:
            thread = threading.Thread(target=finish, args=[value])
            thread.start()
            thread.join()
        else:
            finish(value)
        own, farewell = peer.received()
        if fails:
            assert (own[:2], own[2]["code"]) == ([1, 1], "internal")
        else:
            assert own == [1, 0, 5]
        assert (farewell[0], farewell[2].get("data")) == (None, None)
        assert peer.ended
    assert desk.log == []
    assert server.stats()["in_flight"] == server.stats()["clients"] == 0


def test_future_of_a_command_that_closed_the_server_and_was_done_in_a_race(directory):
    """Another thread finishes it while `poll` finds that it is not done: it is answered once."""
    for turn in range(100):
        desk = Desk(do=threading.Barrier(2), name=f"{10 * turn}")
        desk.server = server = Server(f"{directory}/s", [StopAndFinish])
        with Peer(server) as peer:
            peer.send(call(1, "StopAndFinish"))
            server.poll(desk)
            desk.log[0].join()
            assert [message[0] for message in peer.received()] == [1, None]
            assert peer.ended


@dataclass
class StopAndFinish:
    """Closes the server; a thread finishes the future at about the same time."""

    def process(self, ctx: Desk) -> Future[int]:
        assert ctx.server is not None
        ctx.server.close()
        future: Future[int] = Future()

        def finish() -> None:
            ctx.do.wait()
            for _ in range(int(ctx.name)):
                pass
            future.set_result(5)

        ctx.log.append(threading.Thread(target=finish))
        ctx.log[0].start()
        ctx.do.wait()
        return future


def test_client_that_went_while_it_waited_for_the_command_that_closed(directory, desk):
    desk.server = server = Server(f"{directory}/s", [StopSoon])
    with Peer(server) as peer:
        peer.send(call(1, "StopSoon"))
        server.poll(desk)
    desk.futures[0].set_result(5)
    assert server.stats()["clients"] == 0


def test_close_again_leaves_the_command_that_closed_its_time(directory, desk):
    desk.server = server = Server(f"{directory}/s", [StopSoon])
    with Peer(server) as peer:
        peer.send(call(1, "StopSoon"))
        server.poll(desk)
        server.close()
        desk.futures[0].set_result(5)
        assert peer.received()[0] == [1, 0, 5]


@dataclass
class StopInSteps:
    end: bool = True

    def process(self, ctx: Desk) -> Generator[int | Turn, Any, int]:
        yield 1
        assert ctx.server is not None
        ctx.server.close()
        yield 2
        if not self.end:
            yield Turn(Future())
        yield 3
        return 5


def test_generator_goes_on_to_its_end_when_it_has_closed_the_server(directory, desk):
    desk.server = server = Server(f"{directory}/s", [StopInSteps, Now])
    with Peer(server) as peer:
        peer.send(call(1, "StopInSteps"), call(2, "Now"))
        serve_until(server, lambda: server.closed, desk)
        got = peer.received()
    # `Now` stood behind it, and had its turn between two steps, or it had not.
    assert [message for message in got if message[0] == 1] == [
        [1, 2, 1],
        [1, 2, 2],
        [1, 2, 3],
        [1, 0, 5],
    ]


def test_generator_that_waits_when_it_has_closed_the_server_is_told(directory, desk):
    """Nobody could go on with it: there are no turns any more."""
    desk.server = server = Server(f"{directory}/s", [StopInSteps])
    with Peer(server) as peer:
        peer.send(call(1, "StopInSteps", end=False))
        serve_until(server, lambda: server.closed, desk)
        *pieces, told, farewell = peer.received()
    assert pieces == [[1, 2, 1], [1, 2, 2]]
    assert (told[0], told[2]["code"], told[2]["data"]) == (1, "shutting-down", BEGAN)
    assert farewell[0] is None
    assert server.stats()["in_flight"] == 0


def test_notification_that_closes_the_server_goes_on_to_its_end(directory, desk):
    async def main():
        desk.server = Server(f"{directory}/s", [StopSlowly])
        asyncio_loop.attach(desk.server, desk)
        with Peer(desk.server) as peer:
            peer.send(call(None, "StopSlowly"))
            while "end" not in desk.log:
                await asyncio.sleep(0.001)
            assert peer.received()[0][2]["code"] == "shutting-down"

    asyncio.run(main())
    assert desk.log == ["begin", "end"]


@dataclass
class StopSlowly:
    async def process(self, ctx: Desk) -> str:
        ctx.log.append("begin")
        assert ctx.server is not None
        await asyncio.sleep(0)
        ctx.server.close()
        for _ in range(3):
            await asyncio.sleep(0.001)
        ctx.log.append("end")
        return "stopped"


@pytest.mark.parametrize("again", [False, True])
def test_coroutine_that_closes_the_server_is_answered(directory, desk, again):
    """asyncio, without a conformance suite: what its neighbours are told, and that none goes on."""

    async def main():
        desk.server = server = Server(f"{directory}/s", [StopSlowly, Sleep, Now])
        asyncio_loop.attach(server, desk)
        with Peer(server) as peer, Peer(server) as other:
            other.send(call(1, "Sleep"))
            peer.send(call(1, "Sleep"), call(2, "StopSlowly"), call(3, "Sleep"))
            while not server.closed:
                await asyncio.sleep(0)
            peer.send_what_fits(call(4, "Now"))
            if again:
                server.close()
            while not peer.ended:
                await asyncio.sleep(0.001)
                desk.log += peer.received()
            told = other.received()
        assert [message[0] for message in told] == [1, None]
        assert told[0][2]["data"] == BEGAN
        assert server.stats()["in_flight"] == server.stats()["clients"] == 0
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
    got = [message for message in desk.log if isinstance(message, list)]
    by_id = {message[0]: message for message in got}
    assert list(by_id) == [1, 3, 2, None]
    assert by_id[2] == [2, 0, "stopped"]
    assert by_id[1][2]["data"] == by_id[3][2]["data"] == BEGAN
    assert by_id[None][2].get("data") is None


def test_coroutine_that_has_closed_the_server_and_is_cancelled_by_its_loop(directory, desk):
    """asyncio.run ends before the command does, and cancels it: its client is told that."""

    @dataclass
    class Stop:
        async def process(self, ctx: Desk) -> int:
            assert ctx.server is not None
            ctx.server.close()
            await asyncio.sleep(PATIENCE)
            return 5

    async def main():
        desk.server = server = Server(f"{directory}/s", [Stop])
        asyncio_loop.attach(server, desk)
        peer.append(Peer(server))
        peer[0].send(call(1, "Stop"))
        while not server.closed:
            await asyncio.sleep(0)

    peer: list[Peer] = []
    asyncio.run(main())
    with contextlib.closing(peer[0]):
        own, farewell = peer[0].received()
        assert (own[0], own[2]["code"], own[2]["data"]) == (1, "cancelled", BEGAN)
        assert farewell[0] is None


def test_task_that_a_command_has_started_is_not_its_own_step(directory, desk):
    """What closes there is somebody else: the command is cancelled like all others, and told."""

    @dataclass
    class Start:
        async def process(self, ctx: Desk) -> int:
            async def stop():
                ctx.server.close()

            ctx.log.append(asyncio.create_task(stop()))
            await asyncio.sleep(PATIENCE)
            return 5

    async def main():
        desk.server = server = Server(f"{directory}/s", [Start])
        asyncio_loop.attach(server, desk)
        with Peer(server) as peer:
            peer.send(call(1, "Start"))
            while not server.closed:
                await asyncio.sleep(0)
            told, _ = peer.received()
        assert (told[2]["code"], told[2]["data"]) == ("shutting-down", BEGAN)

    asyncio.run(main())


def test_async_generator_that_closed_and_whose_client_does_not_read(directory, desk):
    """There is no poll that could wait for room: it is given up, and nothing piles up."""

    @dataclass
    class Pour:
        async def process(self, ctx: Desk) -> AsyncIterator[bytes]:
            try:
                yield b""
                assert ctx.server is not None
                ctx.server.close()
                while True:
                    await asyncio.sleep(0)
                    yield bytes(100_000)
            finally:
                ctx.log.append("ended")

    async def main():
        desk.server = server = Server(f"{directory}/s", [Pour], limits=Limits(max_unsent=50_000))
        asyncio_loop.attach(server, desk)
        with Peer(server) as peer:
            peer.send(call(1, "Pour"))
            while "ended" not in desk.log:
                await asyncio.sleep(0.001)
            assert server.stats()["clients"] == 0
            assert peer.received()[0] == [1, 2, b""]

    asyncio.run(main())


def test_command_in_whose_nested_poll_a_late_call_ends_and_closes(make_server, connect, desk):
    """Its own answer still goes out: it is on the stack, whoever closed the server."""

    @dataclass
    class Tidy:
        def process(self, ctx: Desk) -> Generator[Turn, Any, None]:
            try:
                yield Turn(Future())
            finally:
                server.close()

    @dataclass
    class Nest:
        def process(self, ctx: Desk) -> int:
            while not server.closed:
                assert readable(server, PATIENCE)
                server.poll(ctx)
            return 5

    server = make_server([Tidy, Nest])
    peer = connect(server)
    peer.send(encode([1, "Tidy", {}, {"timeout": 0.02}]), call(2, "Nest"))
    serve_until(server, lambda: server.closed, desk)
    late, own, farewell = peer.received()
    assert (late[0], late[2]["code"], late[2]["data"]) == (1, "cancelled", BEGAN)
    assert own == [2, 0, 5]
    assert farewell[0] is None


def test_forked_child_lets_go_of_what_is_still_answered(directory, desk):
    desk.server = server = Server(f"{directory}/s", [StopSoon])
    with Peer(server) as peer:
        peer.send(call(1, "StopSoon"))
        server.poll(desk)
        [connection] = server._clients.connections.values()
        child = os.fork()
        if not child:
            os._exit(0 if connection.closed else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        desk.futures[0].set_result(5)
        assert peer.received()[0] == [1, 0, 5]
        assert peer.ended
