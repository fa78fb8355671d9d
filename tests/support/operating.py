"""What the tests of the command line share: programs in every state, and the command itself."""

from __future__ import annotations

import atexit
import functools
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from harness import PATIENCE, run_python

ROOT = Path(__file__).parents[2]

SERVE = """
import os, select, sys
from dataclasses import dataclass
import ipcpoll

@dataclass
class Add:
    a: int
    b: int
    def process(self, ctx) -> int:
        return self.a + self.b

servers = [ipcpoll.Server(name, Add) for name in sys.argv[1:]]
print("ready", flush=True)
while True:
    for server in select.select(servers, [], [])[0]:
        server.poll(None)
"""

FORKED = """
import os, select, signal, sys
from dataclasses import dataclass
import ipcpoll

@dataclass
class Add:
    a: int
    b: int
    def process(self, ctx) -> int:
        return self.a + self.b

children = []
for name in sys.argv[2:]:
    pid = os.fork()
    if not pid:
        server = ipcpoll.Server(name, Add)
        {behaviour}
    children.append(pid)
    os.waitpid(pid, os.WUNTRACED)
print(*children, flush=True)
sys.stdin.read()
for pid in children:
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass
"""

LISTEN_AS_ANOTHER = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o666)
os.setgid(12345)
os.setuid(12345)
listener.listen()
print("ready", flush=True)
sys.stdin.read()
"""
"""A program of user 12345, which only root can start."""


@contextmanager
def serving(*names: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process that serves these names, and polls whenever it is asked to."""
    process = run_python(SERVE, *names)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[Any]) -> None:
    """End a process, also one that is stopped, and close its pipes."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):  # what was written to it and nobody has read
                pipe.close()


@contextmanager
def stopped(*names: str) -> Iterator[list[int]]:
    """Run a process for each name that serves it, and is stopped by a signal. Gives their pids."""
    with _forked("os.kill(os.getpid(), signal.SIGSTOP)", names) as pids:
        yield pids


def dead(*names: str) -> None:
    """Leave a socket behind under each name: its process was killed."""
    with _forked("os.kill(os.getpid(), signal.SIGKILL)", names):
        pass


@contextmanager
def _forked(behaviour: str, names: Sequence[str]) -> Iterator[list[int]]:
    source = FORKED.format(behaviour=behaviour)
    process = run_python(source, "-", *names, stdin=subprocess.PIPE)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()
        yield [int(word) for word in line.split()]
    finally:
        process.communicate("", timeout=PATIENCE)


def need_another_user() -> None:
    """Skip where no process of user 12345 can be made, or it can't read Python or this checkout."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    process = run_python("import os; os.setgid(12345); os.setuid(12345); import ipcpoll, inspect")
    process.communicate(timeout=PATIENCE)
    if process.returncode:
        pytest.skip("another user can't read this Python, or this checkout")


# ---------------------------------------------------------------------------------------------
# The command


class Ran(NamedTuple):
    """How a run of the command ended."""

    code: int
    out: str
    err: str


def start(*words: str, env: Mapping[str, str] | None = None, **how: Any) -> subprocess.Popen[str]:
    """Start the real command, with pipes unless `how` says otherwise."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
    if "--user" not in words:  # another user could not write what was covered
        environment |= _coverage()
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    # Not of a file that Ctrl-C struck while it was being opened: that is Python's, and is closed.
    warnings = ("-W", "error", "-W", "ignore::ResourceWarning")
    command = [sys.executable, *warnings, "-m", "ipcpoll", *words]
    return subprocess.Popen(command, text=True, env=environment, **{**pipes, **how})


@functools.cache
def _measuring(data_file: str) -> str:
    """Return a configuration with which a process adds to what this one measures."""
    file = tempfile.NamedTemporaryFile("w", suffix=".ini", delete=False)  # noqa: SIM115
    with file:
        file.write(f"[run]\nbranch = true\nparallel = true\ndata_file = {data_file}\n")
        file.write(f"include = {ROOT}/ipcpoll/*\n")
    atexit.register(os.unlink, file.name)
    return file.name


def _coverage() -> dict[str, str]:
    """Return what lets the command be measured too, where this process is (`make cover`)."""
    measured = sys.modules.get("coverage")
    current = None if measured is None else measured.Coverage.current()
    if current is None or current.config.data_file is None:
        return {}
    return {"COVERAGE_PROCESS_START": _measuring(os.path.abspath(current.config.data_file))}


def ran(process: subprocess.Popen[str], said: str | None = None) -> Ran:
    """Wait for its end. `said` is its whole input."""
    try:
        out, err = process.communicate(said, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        kill(process)
        raise AssertionError("the command did not end") from None
    return Ran(process.returncode, out, err)


def run(*words: str, said: str | None = None, **how: Any) -> Ran:
    """Run the real command in pipes, to its end."""
    return ran(start(*words, **how), said)


def run_on_terminal(
    *words: str, env: Mapping[str, str] | None = None, width: int = 100
) -> tuple[int, str]:
    """Run the real command on a pseudo-terminal; return its exit code and all that came."""
    master, slave = os.openpty()
    environment = {"TERM": "xterm-256color", "COLUMNS": str(width), **(env or {})}
    try:
        process = start(*words, env=environment, stdin=slave, stdout=slave, stderr=slave)
    finally:
        os.close(slave)
    watchdog = threading.Timer(PATIENCE, process.send_signal, [signal.SIGKILL])
    watchdog.start()
    came = b""
    try:
        while True:
            try:
                data = os.read(master, 65536)
            except OSError:  # EIO: the last end of the other side was closed
                break
            if not data:
                break
            came += data
        code = process.wait()
    finally:
        watchdog.cancel()
        watchdog.join()
        os.close(master)
    return code, came.decode()
