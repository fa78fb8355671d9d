"""A signal handler that polls or closes, wherever it strikes: a spread sample, and real signals.

The rule is in the docstrings of `Server.poll` and `Server.close`. Every point is struck by
tests/campaign/interruptions.py.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import selectors
import signal
import socket
import tempfile
import threading
import time

import pytest
from fault_runs import descriptors
from handler_scenarios import (
    ACTIONS,
    SCENARIOS,
    mishaps,
    play,
    play_client,
    points,
    points_of_client,
)
from harness import (
    COMMANDS,
    PATIENCE,
    Echo,
    Host,
    Peer,
    answers,
    call,
    full_backlog,
    readable,
    settle,
    wait_until,
)
from interrupted_clients import CLIENT_SCENARIOS, server_process
from interrupting import Steps
from interruptions import quiet

from ipcpoll import Client, PeerGone, Server, UsageError
from ipcpoll.adapters import asyncio_loop, select_loop

RUNS = 40  # of each scenario and action


@pytest.mark.once
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_hazard_63_handler_at_a_sample_of_points(scenario, action):
    with tempfile.TemporaryDirectory(prefix="ipcpoll-") as directory:
        steps = points(f"{directory}/s", scenario)
        struck = 0
        for turn in range(RUNS):
            before = descriptors()
            handler = play(f"{directory}/s", scenario, action, 1 + turn * steps // RUNS)
            struck += handler.where is not None
            gc.collect(0)
            assert descriptors() == before
        assert struck >= RUNS // 2


@pytest.mark.once
@pytest.mark.parametrize("action", ACTIONS)
def test_hazard_63_handler_at_a_sample_of_points_of_a_client(directory, action):
    path = f"{directory}/s"
    with quiet(), server_process(path):
        for scenario in CLIENT_SCENARIOS:
            steps = points_of_client(path, scenario)
            for turn in range(RUNS):
                before = descriptors()
                try:
                    play_client(path, scenario, action, 1 + turn * steps // RUNS)
                except BaseException as error:
                    error.add_note(f"{scenario.__name__}: {action}, run {turn}")
                    raise
                gc.collect(0)
                assert descriptors() == before


@pytest.fixture
def alarm():
    """Let a function be what SIGALRM calls."""
    before = signal.getsignal(signal.SIGALRM)
    yield lambda function: signal.signal(signal.SIGALRM, lambda *_: function())
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def after(turn):
    """Let SIGALRM come within some hundred microseconds, which is what a poll takes."""
    signal.setitimer(signal.ITIMER_REAL, 0.00002 + turn * 37 % 40 * 0.00002)


@pytest.mark.once
def test_hazard_63_real_signals_whose_handler_polls(make_server, connect, alarm):
    """Nobody is lost, and all is answered in order."""
    server, host = make_server(), Host()
    counts = {"refused": 0, "polled": 0}

    def poll():
        try:
            server.poll(host)
            counts["polled"] += 1
        except UsageError:
            counts["refused"] += 1

    alarm(poll)
    until = time.monotonic() + 1.5
    value = 0
    with mishaps() as errors:
        while time.monotonic() < until:
            peers = [connect(server) for _ in range(4)]
            asked = {peer: list(range(value + 10 * i, value + 10 * i + 10))
                     for i, peer in enumerate(peers)}  # fmt: skip
            value += 40
            for peer, values in asked.items():
                peer.send(*(call(i, "Echo", value=i) for i in values))
            got = {peer: [] for peer in peers}
            for turn in range(40):
                after(turn)
                server.poll(host)
            signal.setitimer(signal.ITIMER_REAL, 0)
            settle(server, host)
            for peer in peers:
                got[peer] += peer.received()
                assert got[peer] == [[i, 0, i] for i in asked[peer]]
                assert not peer.ended
                peer.close()
    assert not errors
    assert host.log
    assert len(set(host.log)) == len(host.log)
    assert counts["refused"] > 20


@pytest.mark.once
def test_hazard_63_real_signals_whose_handler_closes(directory, alarm):
    """`poll` returns, and every client is answered or told."""
    before = descriptors()
    until = time.monotonic() + 1.5
    turn = within = 0
    with mishaps() as errors:
        while time.monotonic() < until:
            turn += 1
            server, host = Server(f"{directory}/s", COMMANDS), Host()
            alarm(server.close)
            peers = [Peer(server) for _ in range(4)]
            for peer in peers:
                peer.send(*(call(i, "Echo", value=i) for i in range(20)))
            after(turn)
            try:
                while not server.closed:
                    server.poll(host, max_commands=30)
                    within += server.closed
            except UsageError:
                assert server.closed  # just before `poll` was looked up
            for peer in peers:
                got = peer.received()
                assert peer.ended
                assert got[-1][2]["code"] == "shutting-down"
                assert got[:-1] == [[i, 0, i] for i in range(len(got) - 1)]
                peer.close()
    assert not errors
    assert within > 20
    gc.collect()
    assert descriptors() == before


# ---------------------------------------------------------------------------------------------
# One by one


@pytest.fixture
def when_it_logs(monkeypatch):
    """Call a function when the library writes to the log: that is in the midst of a step."""

    def call_it(function):
        def emit(record):
            handler.told = record.getMessage()
            function()

        handler = logging.Handler()
        handler.emit = emit
        monkeypatch.setattr(logging.getLogger("ipcpoll"), "handlers", [handler])
        return handler

    return call_it


BAD = b"\xd8\x18\x44\x84\x01\x61\x41"  # logged, and answered under the id 1


def test_close_in_the_midst_takes_effect_as_the_poll_ends(server, connect, when_it_logs):
    peer, other = connect(server), connect(server)
    server.poll(Host(), max_commands=0)
    seen = []

    def close():
        server.close()
        seen.append((server.closed, server.fileno() >= 0))

    when_it_logs(close)
    peer.send(call(0, "Echo", value=0), BAD, call(2, "Echo", value=2))
    other.send(call(3, "Echo", value=3), call(4, "Echo", value=4))
    host = Host()
    turns = server.poll(host, max_seconds=60)
    assert server.closed
    assert seen == [(False, True)]
    assert turns < 5, "there are no turns after it"
    for each in (peer, other):
        got = each.received()
        assert each.ended
        assert got[-1][2]["code"] == "shutting-down"
        ran = [message[0] for message in got if message[1] == 0]
        assert all(value in host.log for value in ran)
    assert 2 not in host.log


def test_close_in_the_midst_of_a_nested_poll_takes_effect_as_that_ends(
    server, connect, when_it_logs
):
    """The command that polls goes on, and is answered."""
    peer, other = connect(server), connect(server)
    server.poll(Host(), max_commands=0)
    when_it_logs(server.close)
    seen = []

    def nested():
        other.send(BAD)
        server.poll(host)
        seen.append(server.closed)

    host = Host(do=nested)
    peer.call(5, "Do", value=5)
    server.poll(host)
    assert seen == [True]
    assert peer.received()[0] == [5, 0, 5]
    assert peer.ended


def test_poll_and_rebind_in_the_midst_are_refused(server, connect, when_it_logs):
    peer = connect(server)
    said = []

    def act():
        for method in (server.rebind, lambda: server.poll(Host())):
            with pytest.raises(UsageError) as caught:
                method()
            said.append(str(caught.value))
        server.wake()

    when_it_logs(act)
    peer.send(BAD, call(2, "Echo", value=2))
    got = answers(server, peer, 2)
    assert [message[0] for message in got] == [1, 2]
    assert [words.split("(")[0] for words in said] == ["rebind", "poll"]
    assert all("signal handler" in words and "wake()" in words for words in said)


def test_handler_inside_a_command_may_poll_and_close(server, connect, alarm):
    """There it is like a call of the command."""
    peer, other = connect(server), connect(server)
    server.poll(Host(), max_commands=0)
    host, seen = Host(), []
    inner = Host()

    def act():
        seen.append(server.poll(inner))
        server.close()

    alarm(act)

    def command():
        other.call(1, "Echo", value=1)
        assert readable(server)
        signal.raise_signal(signal.SIGALRM)
        seen.append(server.closed)

    host.do = command
    peer.call(2, "Do", value=2)
    assert server.poll(host) == 1
    assert seen == [1, True]
    assert other.received()[0] == [1, 0, 1]
    assert peer.received()[0] == [2, 0, 2]


def test_close_in_the_midst_of_close_is_the_same_close(server, connect):
    """A generator's `finally` or a signal handler: what is begun is ended by whoever began it."""
    seen = []
    steps = server._take_closing_steps

    def take_steps():
        server.close()
        seen.append(server.closed)
        steps()

    server._take_closing_steps = take_steps
    server.close()
    assert seen == [True]
    assert server._closing == []


def test_command_that_raises_leaves_close_as_it_was(server, connect, when_it_logs):
    """What a close in the midst has left, an exception of the poll does not lose."""
    peer, other = connect(server), connect(server)
    server.poll(Host(), max_commands=0)
    when_it_logs(server.close)

    def stop():
        raise KeyboardInterrupt  # which is logged

    peer.call(1, "Do", value=1)
    with pytest.raises(KeyboardInterrupt):
        server.poll(Host(do=stop))
    assert server.closed
    assert other.received()[-1][2]["code"] == "shutting-down"


# ---------------------------------------------------------------------------------------------
# While the loop sleeps


def run_anyio(server):
    anyio = pytest.importorskip("anyio")
    from ipcpoll.adapters import anyio_loop

    anyio.run(anyio_loop.serve, server, Host())


def run_trio(server):
    trio = pytest.importorskip("trio")
    from ipcpoll.adapters import trio_loop

    trio.run(trio_loop.serve, server, Host())


def run_select(server):
    select_loop.run(server, Host())


@pytest.mark.parametrize("run", [run_select, run_anyio, run_trio])
def test_handler_that_closes_while_the_loop_sleeps_ends_it(server, alarm, run):
    """Python repeats what a signal interrupts: so the loop has to be woken."""

    def close():
        if server.closed:
            raise TimeoutError("it sleeps on")
        server.close()

    alarm(close)
    signal.setitimer(signal.ITIMER_REAL, 0.05, PATIENCE / 4)
    run(server)
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert server.closed
    assert server.attachments == set()


def test_loop_made_by_hand_that_a_handler_ends_by_wake(server, alarm):
    """As docs/security.md says."""
    stop = []

    def end():
        if stop:
            raise TimeoutError("it sleeps on")
        stop.append(True)
        server.wake()

    alarm(end)
    signal.setitimer(signal.ITIMER_REAL, 0.05, PATIENCE / 4)
    with selectors.DefaultSelector() as selector:
        selector.register(server, selectors.EVENT_READ)
        while not stop:
            selector.select()
            server.poll(Host())
    signal.setitimer(signal.ITIMER_REAL, 0)
    server.close()


# ---------------------------------------------------------------------------------------------
# A client


@pytest.mark.parametrize("timeout", [None, 20])
def test_client_that_a_handler_closes_while_a_call_waits(server, alarm, timeout):
    """It waits no longer: nobody has answered, and perhaps nobody ever would."""
    client = Client(server.address, timeout=timeout)
    alarm(client.close)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    with pytest.raises(PeerGone, match="this client closed the connection"):
        client.call(Echo(1))
    assert client.fileno() == -1
    with pytest.raises(UsageError, match="closed"):
        client.call(Echo(1))
    settle(server)


def test_client_that_a_handler_closes_while_it_waits_for_room_to_connect(path, alarm):
    with full_backlog(path):
        client = Client(path, timeout=None)
        alarm(client.close)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(PeerGone, match="this client closed the connection"):
            client.call(Echo(1))


def test_client_that_a_handler_closes_while_a_stream_waits_for_its_server(path, alarm):
    client = Client(path, timeout=None)
    stream = client.stream(Steps(), resume=True)
    alarm(client.close)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    with pytest.raises(PeerGone, match="this client closed the connection"):
        next(stream)


def test_client_that_is_closed_while_a_stream_asks_for_its_server(path, monkeypatch):
    """In the midst of an attempt: that the program does not run is no reason any more."""
    client = Client(path, timeout=None)
    stream = client.stream(Steps(), resume=True)
    connect = socket.socket.connect_ex

    def closing(self, address):
        client.close()
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect_ex", closing)
    with pytest.raises(PeerGone, match="this client closed the connection"):
        next(stream)


def test_awaiting_client_that_a_handler_closes_while_its_loop_sleeps(server, alarm):
    """asyncio calls handlers of `signal.signal` in its sleep, and sleeps on."""

    async def wait():
        client = asyncio_loop.AsyncClient(server.address, timeout=None)
        closed = []

        def close():
            if closed:
                raise TimeoutError("it sleeps on")
            closed.append(True)
            client.close()

        alarm(close)
        signal.setitimer(signal.ITIMER_REAL, 0.05, PATIENCE / 4)
        with pytest.raises(PeerGone, match="this client closed the connection"):
            await client.call(Echo(1))
        signal.setitimer(signal.ITIMER_REAL, 0)

    asyncio.run(wait())
    settle(server)


def test_client_that_another_thread_closes_while_a_call_waits(server):
    client = Client(server.address, timeout=20)
    errors = []

    def ask():
        try:
            client.call(Echo(1))
        except PeerGone as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(lambda: readable(server))
    client.close()
    thread.join()
    assert "this client closed the connection" in str(errors[0])
    settle(server)


def test_function_of_the_program_may_poll_and_close(server):
    """There a handler of a signal is like any other call of the function."""
    client = Client(server.address, timeout=20)
    client.fileno()
    seen = []

    def function(future):
        seen.append(client.poll())
        client.close()
        seen.append(client.fileno())

    client.submit(Echo(1)).add_done_callback(function)
    settle(server)
    while not seen:
        client.poll()
    assert seen == [0, -1]
    settle(server)
