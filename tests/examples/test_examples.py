"""examples/simple.py as its users run it: real processes, their output and their exit codes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import PATIENCE, ROOT, Echo, wait_until

from ipcpoll import Server

pytestmark = pytest.mark.once

SIMPLE = str(ROOT / "examples" / "simple.py")


@pytest.fixture
def address(directory: str) -> str:
    return f"{directory}/simple.sock"


def command(*arguments: str) -> list[str]:
    return [sys.executable, SIMPLE, *arguments]


def environment(**more: str) -> dict[str, str]:
    """Return what the processes see: ipcpoll from the tree, and warnings as errors."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", **more}


def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run simple.py to its end."""
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=environment(**more),
    )


def client(address: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("client", "--address", address, *arguments)


class Running:
    """A simple.py that runs; what it printed can be read at any time."""

    def __init__(self, process: subprocess.Popen[str], out: Path, err: Path) -> None:
        self.process = process
        self._out = out
        self._err = err

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def wait_for_line(self, pattern: str) -> re.Match[str]:
        """Wait until a whole line of output matches, and return the match."""
        lines = re.compile(f"^{pattern}\n", re.MULTILINE)
        wait_until(lambda: lines.search(self.out) or self.process.poll() is not None, repr(pattern))
        match = lines.search(self.out)
        assert match, f"{pattern!r} is not in: {self.out}\n{self.err}"
        return match

    def end(self, number: signal.Signals) -> int:
        """Send a signal, and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@contextmanager
def running(*arguments: str, **more: str) -> Iterator[Running]:
    """Start simple.py; it is ended in any case."""
    with tempfile.TemporaryDirectory(prefix="ipcpoll-") as directory:
        out, err = Path(directory, "out"), Path(directory, "err")
        with out.open("w") as stdout, err.open("w") as stderr:
            process = subprocess.Popen(
                command(*arguments),
                stdout=stdout,
                stderr=stderr,
                text=True,
                env=environment(**more),
            )
        try:
            yield Running(process, out, err)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(PATIENCE)


@contextmanager
def running_server(address: str, *options: str) -> Iterator[Running]:
    with running("server", "--address", address, *options) as server:
        server.wait_for_line(f"serving at {re.escape(address)}, polled .*")
        yield server


@pytest.fixture
def server(address: str) -> Iterator[Running]:
    """A server whose loop turns quickly."""
    with running_server(address, "--interval", "0.01") as server:
        yield server


def is_one_sentence(text: str) -> bool:
    """Return whether an error is told in one line, by the program and not by Python."""
    return text.startswith("simple.py: ") and text.count("\n") == 1


# ---------------------------------------------------------------------------------------------
# The commands


def test_print(server: Running, address: str) -> None:
    asked = client(address, "print", "hello, wörld")
    assert (asked.returncode, asked.stdout, asked.stderr) == (0, "None\n", "")
    assert server.out.splitlines()[1:] == ["Print: hello, wörld"]


def test_add(server: Running, address: str) -> None:
    asked = client(address, "add", "2", "-5")
    assert (asked.returncode, asked.stdout, asked.stderr) == (0, "-3\n", "")
    assert server.out.splitlines()[1:] == ["Add: 2 + -5 = -3"]


def test_push_keeps_a_stack(server: Running, address: str) -> None:
    assert client(address, "push", "7").stdout == "1\n"
    assert client(address, "push", "8").stdout == "2\n"
    assert server.out.splitlines()[1:] == [
        "Push: the stack is [7]",
        "Push: the stack is [7, 8]",
    ]


def test_server_that_is_watched(address: str) -> None:
    with running_server(address, "--watch") as server:
        assert client(address, "add", "2", "3").stdout == "5\n"
        assert "polled when its descriptor is readable" in server.out


def test_default_address_is_a_name(directory: str) -> None:
    with running("server", "--watch", XDG_RUNTIME_DIR=directory) as server:
        match = server.wait_for_line(r"serving at (\S+), polled .*")
        assert match[1] == f"{directory}/ipcpoll/ipcpoll-simple.sock"
        assert run("client", "add", "2", "3", XDG_RUNTIME_DIR=directory).stdout == "5\n"


# ---------------------------------------------------------------------------------------------
# What goes wrong


def test_answer_that_is_an_error(server: Running, address: str) -> None:
    asked = client(address, "add", str(2**64 - 1), "1")
    assert (asked.returncode, asked.stdout) == (1, "")
    assert is_one_sentence(asked.stderr)
    assert "[internal]" in asked.stderr
    assert client(address, "add", "2", "3").stdout == "5\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["neither"],
        ["server", "--interval", "-1"],
        ["server", "--interval", "nan"],
        ["server", "--interval", "1", "--watch"],
        ["server", "--address", "no name"],
        ["client"],
        ["client", "print"],
        ["client", "add", "1"],
        ["client", "add", "1", "x"],
        ["client", "push", "1", "2"],
        ["client", "--timeout", "inf", "push", "1"],
        ["client", "--address", "no name", "push", "1"],
        ["demo", "more"],
    ],
)
def test_wrong_arguments(arguments: list[str]) -> None:
    asked = run(*arguments)
    assert (asked.returncode, asked.stdout) == (2, "")
    assert "Traceback" not in asked.stderr
    assert "simple.py" in asked.stderr


def test_number_that_can_not_be_carried(server: Running, address: str) -> None:
    asked = client(address, "push", str(2**64))
    assert (asked.returncode, asked.stdout) == (2, "")
    assert is_one_sentence(asked.stderr)
    assert "Push.x" in asked.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["server"],
        ["client"],
        ["client", "print"],
        ["client", "add"],
        ["client", "push"],
        ["demo"],
    ],
)
def test_help(arguments: list[str]) -> None:
    asked = run(*arguments, "--help")
    assert (asked.returncode, asked.stderr) == (0, "")
    assert asked.stdout.startswith("usage: simple.py")
    assert "exit codes:" in asked.stdout


def test_no_server(address: str) -> None:
    asked = client(address, "push", "1")
    assert (asked.returncode, asked.stdout) == (3, "")
    assert is_one_sentence(asked.stderr)
    assert "the program does not run" in asked.stderr


def test_server_that_was_killed(address: str) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(address)
        dead.listen()
    asked = client(address, "push", "1")
    assert (asked.returncode, asked.stdout) == (3, "")
    assert is_one_sentence(asked.stderr)
    assert "left its socket behind" in asked.stderr


def test_server_that_does_not_answer(address: str) -> None:
    with Server(address, Echo):
        asked = client(address, "--timeout", "0.05", "push", "1")
    assert (asked.returncode, asked.stdout) == (3, "")
    assert is_one_sentence(asked.stderr)
    assert "within 0.05 s" in asked.stderr


def test_client_is_interrupted(address: str) -> None:
    """It has sent its call, and waits for the answer."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        listener.settimeout(PATIENCE)
        with running("client", "--address", address, "push", "1") as asked:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(PATIENCE)
                assert connection.recv(100)
                assert asked.end(signal.SIGINT) == 130
                assert (asked.out, asked.err) == ("", "")


# ---------------------------------------------------------------------------------------------
# The server's life


@pytest.mark.parametrize("options", [["--watch"], ["--interval", "600"]])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_ends_the_server(
    address: str, options: list[str], number: signal.Signals, code: int
) -> None:
    with running_server(address, *options) as server:
        assert os.path.exists(address)
        assert server.end(number) == code
        assert server.err == ""
    assert not os.path.exists(address)


def test_two_servers_at_one_address(server: Running, address: str) -> None:
    second = run("server", "--address", address)
    assert (second.returncode, second.stdout) == (1, "")
    assert is_one_sentence(second.stderr)
    assert "a server runs at this address already" in second.stderr
    assert client(address, "add", "2", "3").stdout == "5\n"


def test_server_takes_the_place_of_a_dead_one(address: str) -> None:
    with running_server(address, "--watch") as server:
        server.end(signal.SIGKILL)
    assert os.path.exists(address)
    with running_server(address, "--watch"):
        assert client(address, "add", "2", "3").stdout == "5\n"


# ---------------------------------------------------------------------------------------------
# The demonstration


def test_demo(directory: str) -> None:
    """It ends by itself, shows each exchange and both latencies, and leaves nothing behind."""
    # Its signals meet the servers anywhere in a poll, so what they leave to the garbage collector
    # is not asked about.
    shown = run("demo", TMPDIR=directory, PYTHONWARNINGS="")
    assert (shown.returncode, shown.stderr) == (0, "")
    for lines in (
        "$ simple.py client add 2 3\n  server | Add: 2 + 3 = 5\n  client | 5\n",
        "$ simple.py client push 7\n  server | Push: the stack is [7]\n  client | 1\n",
        "$ simple.py server --watch\n",
    ):
        assert lines in shown.stdout
    polled = re.search(r"^  polled once a second +(\d+\.\d\d) ms$", shown.stdout, re.MULTILINE)
    watched = re.search(
        r"^  watched by its descriptor +(\d+\.\d\d) ms$", shown.stdout, re.MULTILINE
    )
    assert polled
    assert watched
    assert float(watched[1]) < float(polled[1])
    assert os.listdir(directory) == []


def test_demo_that_fails(directory: str) -> None:
    """There is no process left for the server, say: here its standard output is closed."""
    code = (
        "import runpy, subprocess, sys\n"
        "popen = subprocess.Popen\n"
        "def fail(command, **options): return popen([sys.executable, '-c', ''], **options)\n"
        "subprocess.Popen = fail\n"
        "sys.argv = ['simple.py', 'demo']\n"
        f"runpy.run_path({str(SIMPLE)!r}, run_name='__main__')\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": directory},
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 1
    assert "the server did not start" in shown.stderr
    assert "Traceback" not in shown.stderr
    assert os.listdir(directory) == []


def test_demo_is_interrupted(directory: str) -> None:
    with running("demo", TMPDIR=directory) as shown:
        match = shown.wait_for_line(r"  server \| serving at (\S+), polled .*")
        assert shown.end(signal.SIGTERM) == 143
        assert not os.path.exists(match[1])
        assert os.listdir(directory) == []
