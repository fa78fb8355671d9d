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

import pytest
from harness import COMMANDS, Host, Peer, call, serve_until, settle
from interrupted_scenarios import BASIC_SCENARIOS, run_interrupted
from interrupting import Interrupter

from ipcpoll import Server
from ipcpoll._server.connection import ServerConnection
from ipcpoll._server.scheduler import Scheduler

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("scenario", "interrupt"),
    [
        *((scenario, KeyboardInterrupt) for scenario in BASIC_SCENARIOS),
        *((scenario, SystemExit) for scenario in BASIC_SCENARIOS[:4]),
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
                    run_interrupted(f"{directory}/{at}", scenario, interrupter)
                except BaseException as error:
                    error.add_note(f"interrupted at {interrupter.where}")
                    raise
                gc.collect(0)
            if interrupter.where is None:
                break
        assert at > 100
    finally:
        logging.getLogger("ipcpoll").setLevel(logging.NOTSET)


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, MemoryError])
def test_hazard_57_interrupted_again_at_every_line_of_the_clearing_up(
    directory, monkeypatch, interrupt
):
    """What the second exception leaves undone, the next poll does first."""
    logging.getLogger("ipcpoll").setLevel(logging.CRITICAL + 1)
    let_go, flush = Scheduler._let_go, ServerConnection.flush
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

            monkeypatch.setattr(Scheduler, "_let_go", clear_up)
            monkeypatch.setattr(ServerConnection, "flush", send_and_strike)
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
