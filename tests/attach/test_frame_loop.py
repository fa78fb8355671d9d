"""adapters/frame_loop.py: what `spend` does with the rest of a frame, in real time.

A frame here is longer than any real one, so that a busy machine can't blur what is shown.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness import Host, Peer, above_1023, call, settle

from ipcpoll import Client, Server, UsageError
from ipcpoll.adapters import frame_loop
from ipcpoll.testing import COMMANDS, Context, Do, Echo, FakePollable

FRAME = 0.25
LATE = 0.1
"""Seconds that a busy machine may be late."""


@pytest.fixture(params=["low", "high"])
def fake(request: pytest.FixtureRequest) -> Iterator[FakePollable]:
    """A pollable, on a descriptor that select(2) takes, and on one that it does not."""
    if request.param == "high":
        with above_1023(FakePollable) as fake:
            yield fake
    else:
        with contextlib.closing(FakePollable()) as fake:
            yield fake


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of each wait that `spend` makes."""
    made: list[float] = []
    wait = frame_loop._wait

    def count(fd: int, seconds: float) -> bool:
        made.append(seconds)
        return wait(fd, seconds)

    monkeypatch.setattr(frame_loop, "_wait", count)
    return made


def spend(pollable: Any, ctx: Any, seconds: float, **options: Any) -> tuple[int, float]:
    """Spend some seconds; return the turns, and the seconds that it took in truth."""
    began = time.monotonic()
    turns = frame_loop.spend(pollable, ctx, began + seconds, **options)
    return turns, time.monotonic() - began


# ---------------------------------------------------------------------------------------------
# The end of a frame


def test_idle_frame_is_one_poll_and_one_wait(fake: FakePollable, waits: list[float]) -> None:
    turns, took = spend(fake, "ctx", 0.05)
    assert turns == 1  # a fake's poll says 1
    assert len(fake.polls) == len(waits) == 1
    assert 0.048 <= took < 0.05 + LATE  # poll(2), for high descriptors, counts milliseconds


@pytest.mark.parametrize("seconds", [0, -0.001, -1000])
def test_late_frame_is_one_poll_without_a_wait(
    fake: FakePollable, waits: list[float], seconds: float
) -> None:
    """Nobody starves because the frames are late."""
    fake.ready(3)
    turns, _ = spend(fake, "ctx", seconds)
    assert (turns, fake.polls, waits) == (1, [("ctx", 0.0)], [])


@pytest.mark.parametrize("until", [math.inf, math.nan])
def test_frame_without_an_end_is_refused(fake: FakePollable, until: float) -> None:
    """A loop that is to wait for ever is `select_loop.run`."""
    with pytest.raises(ValueError, match=f"no end at {until}; until is a moment"):
        frame_loop.spend(fake, None, until)
    assert fake.polls == []
    assert frame_loop.spend(fake, None, -math.inf) == 1


def test_budget_of_a_poll(fake: FakePollable) -> None:
    """2 ms, unless another is given; never more than what is left of the frame."""
    spend(fake, None, 0.05)
    spend(fake, None, 0.05, max_seconds=0.01)
    spend(fake, None, 0.001, max_seconds=5.0)
    spend(fake, None, 0.05, max_seconds=None)
    budgets = [budget for _, budget in fake.polls]
    assert budgets[:2] == [0.002, 0.01]
    assert budgets[2] is not None
    assert budgets[2] <= 0.001
    assert budgets[3] is not None
    assert 0.002 < budgets[3] <= 0.05


def test_command_is_the_most_that_a_frame_is_late(fake: FakePollable) -> None:
    """A poll that takes all that is left is the last."""
    frame_ends = time.monotonic() + 0.02

    def work() -> None:
        while time.monotonic() < frame_ends + 0.01:
            pass

    fake.on_poll = work
    fake.ready(2)
    assert frame_loop.spend(fake, None, frame_ends) == 1
    assert len(fake.polls) == 1


# ---------------------------------------------------------------------------------------------
# Within a frame


def test_call_is_answered_long_before_the_frame_ends(make_server: Callable[..., Any]) -> None:
    server = make_server(COMMANDS)
    answered: list[float] = []
    began = time.monotonic()

    def ask() -> None:
        with Client(server.address) as client:
            for value in range(20):
                assert client.call(Echo(value)) == value
            answered.append(time.monotonic() - began)

    thread = threading.Thread(target=ask)
    thread.start()
    turns = frame_loop.spend(server, Context(), began + 4 * FRAME)
    took = time.monotonic() - began
    thread.join()
    settle(server, Context())
    assert turns == 20
    assert answered[0] < 2 * FRAME  # twenty calls, one after the other: not one a frame
    assert 4 * FRAME <= took < 4 * FRAME + LATE


def test_turns_of_all_polls_are_counted(server: Server[Any], peer: Peer) -> None:
    peer.send(*(call(number, "Echo", value=number) for number in range(30)))
    turns, _ = spend(server, Host(), 0.1, max_seconds=0)
    assert turns == 30
    assert len(peer.received()) == 30


def test_flood_does_not_make_a_frame_late(make_server: Callable[..., Any]) -> None:
    """Frame after frame ends in time, and every call is answered in order."""
    server, ctx = make_server(COMMANDS), Context()
    over = threading.Event()
    rounds: list[list[int]] = []

    def flood() -> None:
        with Client(server.address) as client:
            while not over.is_set():
                rounds.append(list(client.map([Echo(i) for i in range(300)], depth=150)))

    thread = threading.Thread(target=flood)
    thread.start()
    late: list[float] = []
    turns = 0
    frame_ends = time.monotonic()
    for _ in range(30):
        frame_ends += 1 / 60
        turns += frame_loop.spend(server, ctx, frame_ends)
        late.append(time.monotonic() - frame_ends)
    over.set()
    while thread.is_alive():
        frame_loop.spend(server, ctx, time.monotonic() + 0.01)
    settle(server, ctx)
    assert turns > 300
    assert sorted(late)[len(late) // 2] < 1 / 120
    assert max(late) < LATE
    assert rounds
    assert all(answers == list(range(300)) for answers in rounds)


def test_silent_client_costs_no_wait(make_server: Callable[..., Any], waits: list[float]) -> None:
    server = make_server(COMMANDS)
    peer = Peer(server)
    settle(server, Context())
    waits.clear()
    for _ in range(5):
        spend(server, Context(), 0.01)
    assert len(waits) == 5
    peer.close()


# ---------------------------------------------------------------------------------------------
# Ends that come early


def test_closed_in_a_command(server: Server[Any], peer: Peer) -> None:
    """It returns at once: there is nothing to wait for."""
    peer.call(1, "Do", value=7)
    turns, took = spend(server, Host(do=server.close), 1000)
    assert turns == 1
    assert took < 500
    assert [message[:2] for message in peer.received()] == [[1, 0], [None, 1]]


def test_closed_before(server: Server[Any]) -> None:
    server.close()
    with pytest.raises(UsageError, match="the server is closed"):
        spend(server, Host(), 1000)


def test_poll_that_raises(fake: FakePollable) -> None:
    """It comes out; the next frame goes on."""
    fake.error = ZeroDivisionError("the program's")
    with pytest.raises(ZeroDivisionError):
        spend(fake, None, 1000)
    turns, _ = spend(fake, None, 0)
    assert turns == 1


def test_spent_inside_a_command(make_server: Callable[..., Any]) -> None:
    """A game's modal menu has frames of its own: the others are served, the caller waits."""
    server = make_server(COMMANDS)
    ctx = Context()
    menu, other = Client(server.address), Client(server.address)

    def frames() -> None:
        other.notify(Echo(1))
        for _ in range(3):
            spend(server, ctx, 0.01)

    ctx.do = frames
    with menu, other:
        menu.notify(Do())
        menu.notify(Echo(2))
        while 2 not in ctx.log:
            spend(server, ctx, 0.01)
    assert ctx.log == [1, 2]
    settle(server, ctx)
