"""KeyboardInterrupt at every point where CPython can deliver one, in `poll` and in a client's
methods, and from a timer.

    python tests/campaign/interruptions.py --seconds 1800

*Every point*: for each scenario of `interrupted_scenarios`, one run for each point at which CPython
asks whether a signal has come, in the library and in what it calls of the standard library.

*The client*: the same for each scenario of `interrupted_clients`, with a server in another process.
After each the client is as good as new.

*The storm*: an interval timer whose handler raises KeyboardInterrupt while a server is polled, and
clients that know to the last answer what they have got. Whatever is not answered has lost its
connection; nothing is answered twice, nothing runs twice. And the same timer while one client
calls, maps, submits and reads streams for all that time.

*The handlers*: one run for each point in each scenario of `handler_scenarios`, where a signal
handler polls the server, or closes it, and returns. Nothing at all is lost there.

After every run no descriptor is left open, and nothing at the path.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

sys.path.insert(0, os.path.abspath(f"{__file__}/../../support"))

import handler_scenarios
from fault_runs import descriptors
from harness import COMMANDS, Host, Peer, call, settle
from interrupted_clients import (
    CLIENT_SCENARIOS,
    Echo,
    Steps,
    run_interrupted_client,
    server_process,
)
from interrupted_scenarios import SCENARIOS, run_interrupted
from interrupting import Interrupter
from part import Figures, run_as_program

from ipcpoll import Client, PeerGone, Server

KNOWN = {"anon_inode:[timerfd]", "anon_inode:[eventfd]"}
"""Between the system call that makes one of these and its object, one that nobody uses can be lost.
"""

FEWEST = 20  # runs of each scenario and action, however little time there is
SPREAD = 7919
"""A prime: the sample's steps are spread over the scenario, and the same each time."""


def campaign(seconds: float) -> Figures:
    """Strike everywhere, then from a timer for a quarter of the time."""
    began = time.monotonic()
    figures: Figures = {"scenarios": len(SCENARIOS) + len(CLIENT_SCENARIOS)}
    struck = total = 0
    with quiet(), tempfile.TemporaryDirectory(prefix="ipcpoll-", dir=_memory()) as directory:
        figures |= handlers(directory, began + seconds / 4)
        figures |= storm(seconds / 8)
        with server_process(f"{directory}/c"):
            figures |= storm_of_clients(f"{directory}/c", seconds / 8)
            for client_scenario in CLIENT_SCENARIOS:
                points = count_client(client_scenario, f"{directory}/c")
                total += points
                for at in range(1, points + 1):
                    strike_client(client_scenario, f"{directory}/c", at)
                    struck += 1
            figures |= handlers_of_clients(f"{directory}/c", time.monotonic() + seconds / 8)
        totals = {scenario: count(scenario, directory) for scenario in SCENARIOS}
        total += sum(totals.values())
        for scenario in SCENARIOS:
            left = began + seconds - time.monotonic()
            share = left * totals[scenario] / max(1, sum(totals.values()))
            until = time.monotonic() + share
            struck += strike_everywhere(scenario, directory, totals.pop(scenario), until)
    figures["points"] = total
    figures["runs with an interruption"] = struck
    figures["complete"] = "yes" if struck >= total else "no"
    figures["violations"] = 0
    return figures


def count(scenario: Callable[..., None], directory: str) -> int:
    """Return how many points a scenario has."""
    counter = Interrupter(0, KeyboardInterrupt, points=True)
    run_interrupted(f"{directory}/s", scenario, counter)
    return counter.steps


def strike_everywhere(
    scenario: Callable[..., None], directory: str, steps: int, until: float
) -> int:
    """Strike at each step, in an order that is spread, until the time is over."""
    struck = 0
    for turn in range(steps):
        at = turn * SPREAD % steps + 1
        strike(scenario, directory, at)
        struck += 1
        if time.monotonic() >= until:
            break
    return struck


def strike(scenario: Callable[..., None], directory: str, at: int) -> None:
    """Make one run."""
    interrupter = Interrupter(at, KeyboardInterrupt, points=True)
    before = descriptors()
    try:
        run_interrupted(f"{directory}/s", scenario, interrupter)
        gc.collect()
        left = {os.readlink(f"/proc/self/fd/{fd}") for fd in descriptors() - before}
        left -= KNOWN
        assert not left, f"descriptors are left: {left}"
        assert not os.listdir(directory), "something is left at the path"
    except BaseException as error:
        error.add_note(f"{scenario.__name__}: interrupted at {interrupter.where}, step {at}")
        for name in os.listdir(directory):
            os.unlink(f"{directory}/{name}")
        raise


def handlers(directory: str, until: float) -> Figures:
    """Let a handler poll, and close, at each point of each scenario, spread, for some time."""
    total = struck = 0
    for scenario in handler_scenarios.SCENARIOS:
        steps = handler_scenarios.points(f"{directory}/s", scenario)
        share = time.monotonic() + (until - time.monotonic()) / len(handler_scenarios.SCENARIOS)
        for action in handler_scenarios.ACTIONS:
            total += steps
            for turn in range(steps):
                before = descriptors()
                at = turn * SPREAD % steps + 1
                handler = handler_scenarios.play(f"{directory}/s", scenario, action, at)
                gc.collect(0)
                assert descriptors() == before, f"{scenario.__name__}: {action} at {at}"
                assert not os.listdir(directory), "something is left at the path"
                struck += handler.where is not None
                if time.monotonic() >= share and turn >= FEWEST:
                    break
    return {"handlers: points": total, "handlers: runs": struck}


def handlers_of_clients(path: str, until: float) -> Figures:
    """Let a handler poll, and close, a client at each point of each scenario, for some time."""
    total = struck = 0
    for scenario in CLIENT_SCENARIOS:
        steps = handler_scenarios.points_of_client(path, scenario)
        share = time.monotonic() + (until - time.monotonic()) / len(CLIENT_SCENARIOS)
        for action in handler_scenarios.ACTIONS:
            total += steps
            for turn in range(steps):
                before = descriptors()
                at = turn * SPREAD % steps + 1
                handler = handler_scenarios.play_client(path, scenario, action, at)
                gc.collect(0)
                assert descriptors() == before, f"{scenario.__name__}: {action} at {at}"
                struck += handler.where is not None
                if time.monotonic() >= share and turn >= FEWEST:
                    break
    return {"client handlers: points": total, "client handlers: runs": struck}


def count_client(scenario: Callable[..., None], path: str) -> int:
    """Return how many points a scenario of a client has."""
    for _ in range(2):  # what is made once, by the first, is no part of it
        counter = Interrupter(0, KeyboardInterrupt, points=True)
        run_interrupted_client(path, scenario, counter)
    return counter.steps


def strike_client(scenario: Callable[..., None], path: str, at: int) -> None:
    """Make one run of a client."""
    interrupter = Interrupter(at, KeyboardInterrupt, points=True)
    before = descriptors()
    try:
        run_interrupted_client(path, scenario, interrupter)
        gc.collect(0)
        left = {os.readlink(f"/proc/self/fd/{fd}") for fd in descriptors() - before}
        left -= KNOWN
        assert not left, f"descriptors are left: {left}"
    except BaseException as error:
        error.add_note(f"{scenario.__name__}: interrupted at {interrupter.where}, step {at}")
        raise


def storm_of_clients(path: str, seconds: float) -> Figures:
    """Interrupt one client from a timer, and see that it goes on: at worst PeerGone, once each."""
    counts: Counter[str] = Counter()
    before = signal.signal(signal.SIGALRM, _interrupt)
    until = time.monotonic() + seconds
    turn = 0
    try:
        with Client(path, timeout=20.0) as client:
            while time.monotonic() < until:
                turn += 1
                try:
                    try:
                        # From 20 to 420 µs: one of these takes some hundreds.
                        signal.setitimer(signal.ITIMER_REAL, 0.00002 + (turn * 37 % 41) * 0.00001)
                        _use(client, turn)
                    finally:
                        signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt:
                    counts["interruptions"] += 1
                except PeerGone:
                    counts["gone"] += 1
                try:
                    assert client.call(Echo(-turn)) == -turn
                except PeerGone:
                    counts["gone"] += 1
                    assert client.call(Echo(-turn - 1_000_000_000)) == -turn - 1_000_000_000
                counts["answers"] += 1
    finally:
        signal.signal(signal.SIGALRM, before)
    assert counts["interruptions"], "the timer has never struck"
    return {f"client storm: {name}": number for name, number in counts.items()}


def _use(client: Client, turn: int) -> None:
    """Do one of the things that a client can do."""
    value = 10 * turn + 2_000_000_000
    match turn % 4:
        case 0:
            assert client.call(Echo(value)) == value
        case 1:
            values = range(value, value + 5)
            assert list(client.map(map(Echo, values), depth=2)) == list(values)
        case 2:
            with client.stream(Steps(3)) as stream:
                assert list(stream) == [0, 1, 2]
        case _:
            assert client.submit(Echo(value)).result() == value


def storm(seconds: float) -> Figures:
    """Interrupt `poll` from a timer, with clients that account for every call."""
    counts: Counter[str] = Counter()
    host = Host()
    value = 0
    before = signal.signal(signal.SIGALRM, _interrupt)
    until = time.monotonic() + seconds
    try:
        with (
            tempfile.TemporaryDirectory(prefix="ipcpoll-", dir=_memory()) as directory,
            Server(f"{directory}/s", COMMANDS) as server,
        ):
            while time.monotonic() < until:
                value = _one_wave(server, host, value, counts)
            settle(server, host)
            assert server.stats()["clients"] == 0
    finally:
        signal.signal(signal.SIGALRM, before)
    assert counts["interruptions"], "the timer has never struck"
    return {f"storm: {name}": number for name, number in counts.items()}


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _one_wave(server: Server[Any], host: Host, value: int, counts: Counter[str]) -> int:
    """Let some clients pipeline calls, interrupt, and then look who was told what."""
    peers = [Peer(server) for _ in range(8)]
    asked = []
    for peer in peers:
        values = list(range(value, value + 10))
        value += 10
        asked.append(values)
        peer.send(*(call(i, "Echo", value=i) for i in values))
    host.log.clear()
    for turn in range(40):
        try:
            try:
                # From 20 to 400 µs: a poll of such a wave takes some hundreds.
                signal.setitimer(signal.ITIMER_REAL, 0.00002 + (turn * 37 % 20) * 0.00002)
                server.poll(host, max_commands=7)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            counts["interruptions"] += 1
    settle(server, host)
    ran = Counter(host.log)
    assert not ran or max(ran.values()) == 1, "run twice"
    for peer, values in zip(peers, asked, strict=True):
        got = [message for message in peer.received() if message[1] == 0]
        counts["answers"] += len(got)
        assert [message[0] for message in got] == values[: len(got)], "lost, doubled or disordered"
        assert all(message[2] == message[0] for message in got), "the answer of another"
        assert len(got) == len(values) or peer.ended, "not answered, and not closed"
        counts["connections closed"] += peer.ended
        counts["connections"] += 1
        peer.close()
    settle(server, host)
    return value


@contextmanager
def quiet() -> Iterator[None]:
    """Say nothing in the log, nor of what the garbage collector closes."""
    logger = logging.getLogger("ipcpoll")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    unraisable, sys.unraisablehook = sys.unraisablehook, lambda _: None
    gc.freeze()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            yield
    finally:
        gc.unfreeze()
        sys.unraisablehook = unraisable
        logger.setLevel(level)


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


if __name__ == "__main__":
    run_as_program(campaign, about=__doc__)
