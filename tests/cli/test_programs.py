"""Which programs there are, and what state each is in: every state provoked for real."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness import COMMANDS, full_backlog, run_python, serve_process, settle, wait_until
from operating import LISTEN_AS_ANOTHER, dead, kill, need_another_user, serving, stopped

import ipcpoll
from ipcpoll import Server, programs
from ipcpoll._system import peer, processes
from ipcpoll.programs import Program, State


def states(found: list[Program]) -> dict[str, State]:
    return {program.name: program.state for program in found}


def test_running(home: str) -> None:
    with serving("calc") as process:
        [program] = programs.find()
    assert program.name == "calc"
    assert program.address == f"{home}/calc.sock"
    assert program.state is State.RUNNING
    assert program.pid == process.pid
    assert program.since is not None
    assert abs(program.since - time.time()) < 3600
    assert program.command == f"{sys.executable} -c"
    assert program.seconds is not None
    assert 0 < program.seconds < 1


def test_nothing_runs_and_nothing_is_made(home: str) -> None:
    assert programs.find() == []
    assert not os.path.exists(home)


def test_stopped_is_known_at_once_and_asked_nothing(home: str) -> None:
    with stopped("calc") as [pid]:
        began = time.monotonic()
        [program] = programs.find(timeout=60)
        assert time.monotonic() - began < 30
        assert (program.state, program.pid) == (State.STOPPED, pid)
        os.kill(pid, signal.SIGCONT)


def test_stale(home: str) -> None:
    dead("calc")
    [program] = programs.find(timeout=60)
    assert (program.state, program.pid, program.since) == (State.STALE, None, None)


def test_not_reading(home: str) -> None:
    with Server("calc", COMMANDS):
        [program] = programs.find(timeout=0.05)
    assert (program.state, program.pid) == (State.NOT_READING, os.getpid())


def test_not_reading_where_no_connection_is_taken_in(home: str) -> None:
    os.mkdir(home, 0o700)
    with full_backlog(f"{home}/calc.sock"):
        [program] = programs.find(timeout=0.05)
    assert (program.state, program.pid) == (State.NOT_READING, None)


def test_stopped_where_no_connection_is_taken_in(
    home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkdir(home, 0o700)
    with stopped("other") as [pid], full_backlog(f"{home}/calc.sock"):
        monkeypatch.setattr(programs.lockfile, "owner", lambda path, alive: pid)
        assert states(programs.find(timeout=0.05))["calc"] is State.STOPPED


READS = """
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("ready", flush=True)
connection, _ = listener.accept()
connection.recv(4096)
{answer}
"""


def strange(path: str, answer: str) -> subprocess.Popen[str]:
    process = run_python(READS.format(answer=answer), path)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(
    "answer", ["connection.recv(1)", "connection.send(b'220 hello\\r\\n')", "connection.close()"]
)
def test_not_answering(home: str, answer: str) -> None:
    os.mkdir(home, 0o700)
    process = strange(f"{home}/calc.sock", f"{answer}; sys.stdin.read()")
    try:
        [program] = programs.find(timeout=1 if "recv" in answer else 60)
        assert (program.state, program.pid) == (State.NOT_ANSWERING, process.pid)
    finally:
        kill(process)


def test_one_that_closes_meanwhile_is_left_out(home: str) -> None:
    os.mkdir(home, 0o700)
    process = strange(f"{home}/calc.sock", "import os; os.unlink(sys.argv[1])")
    try:
        assert programs.find(timeout=60) == []
    finally:
        kill(process)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_users(home: str) -> None:
    os.mkdir(home, 0o700)
    process = run_python(LISTEN_AS_ANOTHER, f"{home}/calc.sock", stdin=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        [program] = programs.find(timeout=60)
        assert (program.state, program.pid) == (State.ANOTHER_USERS, process.pid)
    finally:
        kill(process)


ASK = """
from ipcpoll import programs
print(*(f"{p.name} {p.state.value}" for p in programs.find(timeout=60)), sep="\\n")
"""


def test_closed_to_this_user(directory: str) -> None:
    """The socket's mode keeps it out: as where root made it in this user's directory."""
    need_another_user()
    home = f"{directory}/ipcpoll"
    os.mkdir(home, 0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{home}/calc.sock")
        os.chmod(f"{home}/calc.sock", 0o600)
        listener.listen()
        for path in (directory, home):
            os.chown(path, 12345, 12345)
        source = f"import os; os.setgid(12345); os.setuid(12345)\n{ASK}"
        os.environ["XDG_RUNTIME_DIR"] = directory
        try:
            process = run_python(source)
        finally:
            del os.environ["XDG_RUNTIME_DIR"]
        out, err = process.communicate(timeout=60)
    assert (out, err) == ("calc another user's\n", "")


def test_one_of_an_older_ipcpoll_answers_too(home: str) -> None:
    """It knows no built-in commands: unknown-command is an answer."""
    with Server("calc", COMMANDS) as server:
        process = run_python(ASK)
        assert serve_process(server, process) == "calc running\n"


def test_one_that_is_full_answers_too(home: str) -> None:
    limits = ipcpoll.Limits(max_clients=1)
    with Server("calc", COMMANDS, limits=limits) as server, socket.socket(socket.AF_UNIX) as first:
        first.connect(server.address)
        settle(server)
        assert serve_process(server, run_python(ASK)) == "calc running\n"


def test_fifty_programs(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under 1 s with 5 stopped and 5 dead; no lock is taken, no file made."""
    alive = [f"p{number:02}" for number in range(40)]
    halted = [f"s{number}" for number in range(5)]
    gone = [f"d{number}" for number in range(5)]
    dead(*gone)
    monkeypatch.setattr(fcntl, "flock", lambda *_: pytest.fail("a lock was taken"))
    with ExitStack() as running:
        running.enter_context(serving(*alive))
        running.enter_context(stopped(*halted))
        before = sorted(os.listdir(home))
        began = time.monotonic()
        found = programs.find()
        took = time.monotonic() - began
        assert sorted(os.listdir(home)) == before
    assert [program.name for program in found] == sorted([*alive, *halted, *gone])
    expected = dict.fromkeys(alive, State.RUNNING)
    expected |= dict.fromkeys(halted, State.STOPPED)
    assert states(found) == expected | dict.fromkeys(gone, State.STALE)
    assert took < 1


def test_servers_are_none_the_wiser(home: str) -> None:
    """A connection and a turn are counted, and nothing else: no fault, nothing that stays."""
    with Server("calc", COMMANDS) as server:
        before = server.stats()
        serve_process(server, run_python(ASK))
        settle(server)
        assert server.stats() == before | {
            "accepted": before["accepted"] + 1,
            "turns": before["turns"] + 1,
        }


def test_more_programs_than_descriptors(home: str) -> None:
    """Those that find none are asked when the others have answered."""
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))\n{ASK}"
    names = [f"p{number:02}" for number in range(30)]
    with serving(*names):
        process = run_python(limited)
        out, err = process.communicate(timeout=60)
    assert (out.splitlines(), err) == ([f"{name} running" for name in names], "")


def test_no_descriptor_at_all_is_an_error(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise OSError(24, "Too many open files")

    with Server("calc", COMMANDS):
        monkeypatch.setattr(programs, "unix_socket", none)
        with pytest.raises(OSError, match="Too many open files"):
            programs.find(timeout=0.05)


def test_what_is_no_socket_is_left_out(home: str) -> None:
    os.mkdir(home, 0o700)
    Path(home, "file.sock").touch()
    Path(home, "calc.lock").touch()
    os.symlink("nowhere", f"{home}/link.sock")
    assert programs.find() == []


def test_a_file_that_no_name_leads_to_goes_by_its_path(home: str) -> None:
    os.mkdir(home, 0o700)
    path = f"{home}/with space.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
    assert states(programs.find()) == {path: State.STALE}


def test_longer_path_than_a_socket_address_holds(
    directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = f"{directory}/{'x' * 100}"
    os.mkdir(parent, 0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", parent)
    with serving("calc"):
        assert states(programs.find(timeout=60)) == {"calc": State.RUNNING}


def test_unsafe_directory_is_passed_over(home: str) -> None:
    os.mkdir(home, 0o700)
    with serving("calc"):
        os.chmod(home, 0o755)
        assert programs.find() == []
        assert programs.look("calc") is None
        [first, *_] = programs.directories()
        assert first[0] == home
        assert "can be entered by others" in (first[1] or "")
        os.chmod(home, 0o700)
    assert programs.directories()[0][1] is None


def test_directory_that_cant_be_looked_at(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: str) -> os.stat_result:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(os, "lstat", denied)
        said = programs.why_unsafe(home)
    assert said == "can't be looked at (Permission denied)"


def test_look(home: str) -> None:
    assert programs.look("calc") is None
    with serving("calc") as process:
        by_name = programs.look("calc", timeout=60)
        by_path = programs.look(f"{home}/calc.sock", timeout=60)
    assert by_name is not None
    assert by_path is not None
    assert (by_name.name, by_path.name) == ("calc", f"{home}/calc.sock")
    assert by_name.pid == by_path.pid == process.pid
    with pytest.raises(ValueError, match="no name"):
        programs.look("a b")


def test_connect(home: str) -> None:
    with pytest.raises(ipcpoll.NotRunning):
        programs.connect("calc")
    with serving("calc") as process:
        connected = programs.connect("calc")
        with connected.socket:
            assert connected.peer.pid == process.pid
            assert connected.path == f"{home}/calc.sock"
            assert not connected.socket.getblocking()


# ---------------------------------------------------------------------------------------------
# Of a process


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["/usr/bin/python3.11", "app.py", "--token", "abc"], "/usr/bin/python3.11 app.py"),
        (["python3", "-m", "game", "--secret=1"], "python3 -m game"),
        (["python3", "-mgame", "x"], "python3 -m game"),
        (["python3", "-Im", "game"], "python3 -m game"),
        (["python3", "-m"], "python3 -m"),
        (["python3", "-X", "dev", "-W", "error", "-u", "app.py", "x"], "python3 app.py"),
        (["python3", "-Xdev", "-Wd", "app.py"], "python3 app.py"),
        (["python3", "--check-hash-based-pycs", "always", "app.py"], "python3 app.py"),
        (["python3", "-c", "token = 1"], "python3 -c"),
        (["python3", "-ctoken=1", "x"], "python3 -c"),
        (["python3", "-"], "python3 -"),
        (["python3"], "python3"),
        (["python3", "-u"], "python3"),
        (["pypy3.11", "app.py", "x"], "pypy3.11 app.py"),
        (["python3.13t", "app.py", "x"], "python3.13t app.py"),
        (["./game", "--token", "abc"], "./game"),
        ([""], ""),
    ],
)
def test_command_without_arguments(words: list[str], shown: str) -> None:
    assert processes.without_arguments(words) == shown


def test_process_that_has_ended() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert processes.began(process.pid) is None
    assert processes.command(process.pid) == ""


def test_when_a_process_began() -> None:
    before = time.time()
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        began = processes.began(process.pid)
        assert began is not None
        assert abs(began - before) < 30
        wait_until(lambda: processes.command(process.pid) == f"{sys.executable} -c")
    finally:
        kill(process)


def test_proc_of_another_namespace_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "proc_is_ours", lambda: False)
    assert processes.began(os.getpid()) is None
    assert processes.command(os.getpid()) == ""
