"""`ipcpoll dial`: the real executable, in pipes, on a socket, between a client and a server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import PATIENCE, call, full_backlog, wait_until
from operating import Ran, dead, kill, run, serving, start, stopped

from ipcpoll.cli import dial
from ipcpoll.cli.exits import Usage


@contextmanager
def dialling(address: str, *words: str, **how: Any) -> Iterator[Any]:
    process: Any = start("dial", address, *words, **how)
    try:
        yield process
    finally:
        kill(process)


def greeting(process: Any) -> dict[str, int]:
    line = process.stdout.buffer.readline().decode()
    name, version, said = line.split(" ", 2)
    assert (name, version) == ("ipcpoll-dial", "1")
    found: dict[str, int] = json.loads(said)
    return found


def test_greeting_and_a_call(home: str) -> None:
    with serving("calc") as server, dialling("calc") as process:
        assert greeting(process) == {"pid": server.pid, "uid": os.geteuid(), "dial": process.pid}
        assert Path(f"/proc/{process.pid}/comm").read_text() == "ipcpoll-dial\n"
        process.stdin.buffer.write(call(1, "Add", a=2, b=3))
        process.stdin.flush()
        process.stdin.close()  # half-close: the answer still comes
        answer = process.stdout.buffer.read()
        assert answer == b"\xd8\x18\x44\x83\x01\x00\x05"
        assert process.wait(PATIENCE) == 0
        assert process.stderr.read() == ""


@contextmanager
def listening(home: str) -> Iterator[socket.socket]:
    """A program made by hand."""
    os.makedirs(home, 0o700, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{home}/calc.sock")
        listener.listen()
        listener.settimeout(PATIENCE)
        yield listener


def test_each_half_ends_for_itself(home: str) -> None:
    with listening(home) as listener, dialling("calc") as process:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(PATIENCE)
            greeting(process)
            connection.sendall(b"last words")
            connection.shutdown(socket.SHUT_WR)
            assert process.stdout.buffer.read() == b"last words"
            assert process.poll() is None
            process.stdin.buffer.write(b"still heard")
            process.stdin.close()
            assert connection.recv(100, socket.MSG_WAITALL) == b"still heard"
            assert process.wait(PATIENCE) == 0


def test_it_ends_when_the_program_has_gone(home: str) -> None:
    with listening(home) as listener, dialling("calc") as process:
        connection, _ = listener.accept()
        greeting(process)
        connection.close()
        assert process.stdout.buffer.read() == b""
        assert process.wait(PATIENCE) == 0  # stdin is open still


def test_it_ends_when_nobody_reads_it(home: str) -> None:
    with listening(home) as listener, dialling("calc") as process:
        connection, _ = listener.accept()
        with connection:
            greeting(process)
            process.stdout.close()
            assert process.wait(PATIENCE) == 0


def test_what_was_said_before_still_arrives(home: str) -> None:
    """A notification, and then whoever sent it has gone: on one socket, as ssh may give it."""
    with listening(home) as listener:
        ours, theirs = socket.socketpair()
        with ours, theirs, dialling("calc", stdin=theirs, stdout=theirs) as process:
            theirs.close()
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(PATIENCE)
                ours.settimeout(PATIENCE)
                assert ours.recv(100).startswith(b"ipcpoll-dial 1 {")
                os.kill(process.pid, signal.SIGSTOP)
                ours.sendall(b"x" * 100_000)
                ours.close()
                os.kill(process.pid, signal.SIGCONT)
                came = b""
                while data := connection.recv(65536):
                    came += data
                assert came == b"x" * 100_000
                assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("kind", ["pipes", "socket"])
def test_many_bytes_in_both_directions(home: str, kind: str) -> None:
    """8 MiB there and back at once, through buffers of 256 KiB: nothing is lost or reordered."""
    block = bytes(range(256)) * 256
    blocks = 128
    with listening(home) as listener:
        ours, theirs = socket.socketpair()
        how = {"stdin": theirs, "stdout": theirs} if kind == "socket" else {}
        with ours, theirs, dialling("calc", **how) as process:
            connection, _ = listener.accept()

            def echo() -> None:
                with connection:
                    while data := connection.recv(65536):
                        connection.sendall(data)

            echoing = threading.Thread(target=echo)
            echoing.start()
            if kind == "socket":
                theirs.close()
                ours.settimeout(PATIENCE)
                reading: Any = ours.makefile("rb")
                writing: Any = ours.makefile("wb")
            else:
                reading, writing = process.stdout.buffer, process.stdin.buffer
            reading.readline()

            def write() -> None:
                for _ in range(blocks):
                    writing.write(block)
                writing.close()
                if kind == "socket":
                    ours.shutdown(socket.SHUT_WR)

            sending = threading.Thread(target=write)
            sending.start()
            came = 0
            while data := reading.read(len(block)):
                assert data == block
                came += 1
            sending.join()
            echoing.join()
            reading.close()
            assert came == blocks
            assert process.wait(PATIENCE) == 0


def test_it_holds_no_more_than_its_bounds(home: str) -> None:
    """A program that reads nothing: stdin is not read on and on."""
    with listening(home) as listener, dialling("calc") as process:
        connection, _ = listener.accept()
        with connection:
            greeting(process)
            stdin = process.stdin.fileno()
            os.set_blocking(stdin, False)
            sent = 0
            full = 0

            def is_full() -> bool:
                nonlocal sent, full
                try:
                    sent += os.write(stdin, b"x" * 65536)
                    full = 0
                except BlockingIOError:
                    full += 1
                return full > 200

            wait_until(is_full)
            # The pipe, the socket's buffer, and what it holds.
            assert sent < dial.MOST_HELD + 65536 + 1024 * 1024
            came = 0
            connection.settimeout(PATIENCE)
            while came < sent:
                came += len(connection.recv(65536))


# ---------------------------------------------------------------------------------------------
# What fails has sent nothing


def test_not_running(home: str) -> None:
    assert run("dial", "calc") == Ran(
        3,
        "",
        f"ipcpoll: the program does not run: there is no socket at {home}/calc.sock; start it; "
        "`ipcpoll ls` shows what runs\n",
    )


def test_stale(home: str) -> None:
    dead("calc")
    code, out, err = run("dial", "calc")
    assert (code, out) == (4, "")
    assert "has left its socket behind" in err


def test_busy(home: str) -> None:
    os.mkdir(home, 0o700)
    with full_backlog(f"{home}/calc.sock"):
        code, out, err = run("dial", "calc", "--timeout", "50ms")
    assert (code, out) == (5, "")
    assert "has not taken in this connection within 0.05 s" in err


def test_stopped_is_connected_to(home: str) -> None:
    """The kernel connects; whoever asks finds out, and has sent nothing before the greeting."""
    with stopped("calc") as [pid], dialling("calc") as process:
        assert greeting(process)["pid"] == pid


def test_unsafe_place(home: str) -> None:
    os.mkdir(home, 0o755)
    code, out, err = run("dial", "calc")
    assert (code, out) == (7, "")
    assert "can be entered by others" in err


def test_interrupted(home: str) -> None:
    with serving("calc"), dialling("calc") as process:
        greeting(process)
        process.send_signal(signal.SIGINT)
        process.stdin.close()
        assert process.wait(PATIENCE) == 130
        assert process.stderr.read() == ""


# ---------------------------------------------------------------------------------------------
# Its words


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["dial", "calc"], ("calc", 5.0, None)),
        (["dial", "dial"], ("dial", 5.0, None)),
        (["dial", "./x", "--timeout", "200ms"], ("./x", 0.2, None)),
        (["--user", "ann", "--timeout=1", "dial", "-j", "calc"], ("calc", 1.0, "ann")),
    ],
)
def test_words(words: list[str], found: tuple[str, float, str | None]) -> None:
    assert dial.parse(words) == found


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["dial"], "dial needs the name of one program"),
        (["dial", "a", "b"], "dial needs the name of one program"),
        (["dial", "--what"], "dial needs the name of one program"),
        (["dial", "a", "--timeout"], "--timeout needs a value"),
        (["dial", "a", "--timeout", "x"], "--timeout must be a time like 2, 1.5s or 200ms"),
    ],
)
def test_wrong_words(words: list[str], sentence: str) -> None:
    with pytest.raises(Usage, match=sentence):
        dial.parse(words)


def test_wrong_words_and_help() -> None:
    assert run("dial", "a b")[::2][0] == 2
    assert run("dial", "--help") == Ran(0, dial.HELP, "")


def test_it_imports_neither_click_nor_rich(home: str) -> None:
    program = (
        "import sys; sys.argv = ['ipcpoll', 'dial', 'calc'];"
        "import ipcpoll.__main__ as command; code = command.main();"
        "tops = {name.partition('.')[0] for name in sys.modules};"
        "print(tops & {'click', 'rich', 'asyncio'}, code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set() 3\n"


def test_closed_stdio_is_no_danger(home: str) -> None:
    """The connection never becomes descriptor 0 or 1."""
    with listening(home):
        command = f'exec "{sys.executable}" -m ipcpoll dial calc <&- >&-'
        done = subprocess.run(["sh", "-c", command], capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
