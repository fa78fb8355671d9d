"""`ipcpoll doctor`: every check fails for real, and the exit code is that of the first."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import Any

import pytest
from harness import COMMANDS, full_backlog, readable, run_python, wait_until
from operating import LISTEN_AS_ANOTHER, dead, kill, run, run_on_terminal, serving, start, stopped

from ipcpoll import Server
from ipcpoll.cli import doctor


def lines(out: str) -> list[list[str]]:
    return [line.split("\t") for line in out.splitlines()]


def wrong(out: str) -> list[list[str]]:
    return [line[1:] for line in lines(out) if line[0] != "ok"]


def test_all_is_well(home: str) -> None:
    with serving("calc") as process:
        code, out, err = run("doctor", "calc")
    assert (code, err) == (0, "")
    assert [line[:2] for line in lines(out)] == [
        ["ok", what]
        for what in ("libraries", "name", "socket", "listener", "user", "reading", "answer")
    ]
    assert f"pid {process.pid} (" in lines(out)[-1][2]
    assert " answers, within " in lines(out)[-1][2]


def test_of_all_programs(home: str) -> None:
    dead("gone")
    with serving("calc") as process, stopped("held") as [pid]:
        code, out, err = run("doctor")
    assert err == ""
    assert code == 4  # of the first that is wrong
    assert ["ok", "program calc", f"pid {process.pid} answers"] in lines(out)
    assert wrong(out) == [
        [
            "program gone",
            "it ended and left its socket behind; start it again, that clears it away",
        ],
        [
            "program held",
            f"pid {pid} is stopped (by a signal or a debugger); let it go on: kill -CONT {pid}",
        ],
    ]


def test_no_directory_yet(home: str) -> None:
    code, out, _ = run("doctor")
    assert code == 0
    assert ["ok", "directory", f"{home} is not there yet: the first program makes it"] in lines(out)


def test_no_name(home: str) -> None:
    code, out, _ = run("doctor", "a b")
    assert code == 2
    assert wrong(out)[0][0] == "name"
    assert "is no name for a server" in wrong(out)[0][1]


def test_not_running(home: str) -> None:
    code, out, _ = run("doctor", "calc")
    assert code == 3
    [[what, says]] = wrong(out)
    assert what == "socket"
    assert f"there is no socket at {home}/calc.sock; start it" in says


def test_stale(home: str) -> None:
    dead("calc")
    code, out, _ = run("doctor", "calc")
    assert code == 4
    [[what, says]] = wrong(out)
    assert (what, [line[1] for line in lines(out) if line[0] == "ok"][-1]) == ("listener", "socket")
    assert "has left its socket behind" in says


def test_stopped(home: str) -> None:
    """Known at once: it is not waited for."""
    with stopped("calc") as [pid]:
        code, out, _ = run("doctor", "calc", "--timeout", "1h")
    assert code == 5
    [[what, says]] = wrong(out)
    assert what == "reading"
    assert says.endswith(f"let it go on: kill -CONT {pid}")


def test_not_reading(home: str) -> None:
    with Server("calc", COMMANDS):
        code, out, _ = run("doctor", "calc", "--timeout", "50ms")
    assert code == 5
    [[what, says]] = wrong(out)
    assert what == "reading"
    assert f"pid {os.getpid()} is alive and has not read ipcpoll.get within 0.05 s" in says


def test_full(home: str) -> None:
    os.mkdir(home, 0o700)
    with full_backlog(f"{home}/calc.sock"):
        code, out, _ = run("doctor", "calc", "--timeout", "50ms")
    assert code == 5
    assert "its backlog is full" in wrong(out)[0][1]


ODD = """
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("ready", flush=True)
kept = []
while True:
    connection, _ = listener.accept()
    if {closes}:
        connection.close()
    else:
        kept.append(connection)
        connection.recv(4096)
"""


@pytest.mark.parametrize(("closes", "code"), [(False, 6), (True, 9)])
def test_not_answering(home: str, closes: bool, code: int) -> None:
    os.mkdir(home, 0o700)
    process = run_python(ODD.format(closes=closes), f"{home}/calc.sock")
    try:
        assert process.stdout is not None
        process.stdout.readline()
        found, out, _ = run("doctor", "calc", "--timeout", "300ms")
    finally:
        kill(process)
    assert found == code
    assert wrong(out)[0][0] == "answer"


def test_unsafe_directory(home: str) -> None:
    os.mkdir(home, 0o755)
    code, out, _ = run("doctor")
    assert code == 7
    [what, says] = wrong(out)[0]
    assert what == "directory"
    assert "can be entered by others" in says
    assert "chmod go-rwx it" in says
    code, out, _ = run("doctor", "calc")
    assert code == 7
    assert wrong(out)[0][0] == "user"


def test_variable_that_is_passed_over(directory: str) -> None:
    os.chmod(directory, 0o755)
    code, out, _ = run("doctor", env={"XDG_RUNTIME_DIR": directory})
    assert code == 7
    [what, says] = wrong(out)[0]
    assert what == "XDG_RUNTIME_DIR"
    assert says.startswith(f"{directory} can be entered by others")


def test_as_json(home: str) -> None:
    code, out, err = run("doctor", "calc", "-j")
    assert (code, err, out.count("\n")) == (3, "", 1)
    *_, last = json.loads(out)
    assert (last["check"], last["well"]) == ("socket", False)


def test_on_a_terminal(home: str) -> None:
    code, out = run_on_terminal("doctor", "calc")
    assert code == 3
    assert "\x1b[32mok\x1b[0m  name: " in out
    assert "\x1b[31mWRONG\x1b[0m  socket: " in out
    code, out = run_on_terminal("doctor", "calc", env={"NO_COLOR": "1"})
    assert code == 3
    assert "\x1b" not in out
    assert "WRONG  socket: " in out


def test_libraries_that_let_too_much_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsafe(*_: Any) -> None:
        raise doctor.ipcpoll.UnsafeDependency("cbor2 9.9 takes tags")

    monkeypatch.setattr(doctor.ipcpoll, "Client", unsafe)
    [first, *_] = doctor.checked(None, 0)
    assert first == ("libraries", False, "cbor2 9.9 takes tags", 1)


def test_closed_pipe(home: str) -> None:
    """`ipcpoll doctor | head -0`."""
    process = start("doctor")
    assert process.stdout is not None
    process.stdout.close()
    try:
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    finally:
        kill(process)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_users(home: str) -> None:
    os.mkdir(home, 0o700)
    process = run_python(LISTEN_AS_ANOTHER, f"{home}/calc.sock", stdin=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        code, out, _ = run("doctor", "calc")
    finally:
        kill(process)
    assert code == 7
    [[what, says]] = wrong(out)
    assert what == "user"
    assert f"pid {process.pid} belongs to user 12345" in says


@pytest.mark.parametrize("verb", [("doctor", "calc"), ("doctor",), ("ls",)])
def test_ctrl_c(home: str, verb: tuple[str, ...]) -> None:
    """While it waits for a program that reads nothing."""
    with Server("calc", COMMANDS) as server:
        process = start(*verb, "--timeout", "1h")
        try:
            wait_until(lambda: readable(server))  # it has connected
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
            assert process.stderr is not None
            assert process.stderr.read() == ""
        finally:
            kill(process)
