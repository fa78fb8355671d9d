"""`ipcpoll ls`: the real executable, in a pipe and on a terminal."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from contextlib import ExitStack

import pytest
from harness import COMMANDS, full_backlog
from operating import dead, run, run_on_terminal, serving, stopped

from ipcpoll import Server

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def rows(out: str) -> dict[str, list[str]]:
    return {line.split("\t")[0]: line.split("\t")[1:] for line in out.splitlines()}


def test_in_a_pipe(home: str) -> None:
    """One line each, tabs between the columns, no head, no colour."""
    dead("gone")
    with serving("calc") as process, stopped("held") as [pid]:
        code, out, err = run("ls")
    assert (code, err) == (0, "")
    found = rows(out)
    assert list(found) == ["calc", "gone", "held"]
    state, shown_pid, since, command = found["calc"]
    assert (state, shown_pid) == ("running", str(process.pid))
    assert abs(time.mktime(time.strptime(since[:19], "%Y-%m-%dT%H:%M:%S")) - time.time()) < 3600
    assert command.endswith(" -c")
    assert found["gone"] == ["stale", "-", "-", "-"]
    assert found["held"][:2] == ["stopped", str(pid)]


def test_as_json(home: str) -> None:
    dead("gone")
    with serving("calc") as process:
        code, out, err = run("ls", "-j")
        assert len(json.loads(run("-j", "ls").out)) == 2  # options stand anywhere
    calc, gone = json.loads(out)
    assert (code, err, out.count("\n")) == (0, "", 1)
    assert calc["pid"] == process.pid
    assert calc["state"] == "running"
    assert calc["address"] == f"{home}/calc.sock"
    assert abs(calc["since"] - time.time()) < 3600
    assert gone == {
        "name": "gone",
        "state": "stale",
        "pid": None,
        "since": None,
        "command": "",
        "address": f"{home}/gone.sock",
    }


def test_on_a_terminal(home: str) -> None:
    dead("gone")
    with serving("calc"):
        code, out = run_on_terminal("ls")
    assert code == 0
    assert "\x1b[32mrunning" in out
    assert "\x1b[31mstale" in out
    head, calc, gone = ESCAPE.sub("", out).split("\r\n")[:3]
    assert head.split() == ["NAME", "STATE", "PID", "SINCE", "COMMAND"]
    assert calc.split()[:2] == ["calc", "running"]
    assert gone.split() == ["gone", "stale", "-", "-", "-"]


def test_without_colour(home: str) -> None:
    with serving("calc"):
        code, out = run_on_terminal("ls", env={"NO_COLOR": "1"})
    assert code == 0
    assert "\x1b[3" not in out
    assert "running" in out


def test_nothing_runs(home: str) -> None:
    assert run("ls") == (0, "", "")
    assert run("ls", "-j") == (0, "[]\n", "")
    code, out = run_on_terminal("ls")
    assert (code, out) == (0, f"no program of this user has a socket in {home}\r\n")


def test_every_other_state(home: str) -> None:
    """Not reading is waited for, 1 s at most, or as long as --timeout says."""
    with ExitStack() as there:
        silent = there.enter_context(Server("silent", COMMANDS))
        there.enter_context(full_backlog(f"{home}/full.sock"))
        listener = there.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(f"{home}/odd.sock")
        listener.listen()
        began = time.monotonic()
        code, out, _ = run("ls", "--timeout", "100ms")
        assert time.monotonic() - began < 30
        found = {name: row[:2] for name, row in rows(out).items()}
        assert found["silent"] == ["not reading", str(os.getpid())]
        assert found["full"] == ["not reading", "-"]
        assert found["odd"] == ["not reading", str(os.getpid())]
        assert code == 0
        assert silent.stats()["clients"] == 0


@pytest.mark.parametrize("terminal", [False, True])
def test_names_steer_nothing(home: str, terminal: bool) -> None:
    """A file's name may hold anything, an escape sequence and a tab too."""
    os.mkdir(home, 0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{home}/\x1b[2J\u202e[red]\t.sock")
    if terminal:
        code, out = run_on_terminal("ls", width=200, env={"NO_COLOR": "1"})
        assert "\x1b[2J" not in out
    else:
        code, out, _ = run("ls")
        assert out.count("\t") == 4
        assert "\x1b" not in out
    assert code == 0
    assert "\u202e" not in out
    assert r"\x1b[2J\u202e[red]\t.sock" in out


def test_fifty_programs(home: str) -> None:
    """5 of them stopped and 5 dead, in a process of its own, Python's start included."""
    alive = [f"p{number:02}" for number in range(40)]
    halted = [f"s{number}" for number in range(5)]
    dead(*(f"d{number}" for number in range(5)))
    with serving(*alive), stopped(*halted):
        began = time.monotonic()
        code, out, err = run("ls")
        took = time.monotonic() - began
    assert (code, err) == (0, "")
    states = [row[0] for row in rows(out).values()]
    assert (states.count("running"), states.count("stopped"), states.count("stale")) == (40, 5, 5)
    assert took < 1
