"""How long the command takes to start, over a Python that does nothing.

Both are measured in CPU time and in turns, so other work on the machine hardly counts; compiled, as
an installed package is.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from operating import ROOT, serving

pytestmark = pytest.mark.once

PAIRS = 7
NOTHING = ("-c", "pass")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The bytecode is kept in a place of the test's own."""
    kept: Path = tmp_path_factory.mktemp("bytecode")
    without = {"PYTHONDONTWRITEBYTECODE", "NO_COLOR"}
    inherited = {name: value for name, value in os.environ.items() if name not in without}
    return {**inherited, "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(kept), "TERM": "xterm"}


@pytest.fixture
def terminal() -> Iterator[int]:
    """The program's end of a pseudo-terminal; what little comes is kept by the kernel."""
    master, slave = os.openpty()
    yield slave
    os.close(slave)
    os.close(master)


def cpu_ms(arguments: tuple[str, ...], environment: dict[str, str], stdout: int) -> float:
    process = subprocess.Popen([sys.executable, *arguments], env=environment, stdout=stdout)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return 1000 * (used.ru_utime + used.ru_stime)


def start_ms(words: tuple[str, ...], environment: dict[str, str], stdout: int) -> float:
    """Return the median of what the command takes more than Python."""
    command = ("-m", "ipcpoll", *words)
    cpu_ms(command, environment, stdout)  # compiles it
    more = [
        cpu_ms(command, environment, stdout) - cpu_ms(NOTHING, environment, stdout)
        for _ in range(PAIRS)
    ]
    return statistics.median(more)


@pytest.mark.parametrize(
    ("words", "budget"), [(("ls",), 75), (("ls", "-j"), 75), (("--help",), 75)]
)
def test_in_a_pipe(
    home: str, environment: dict[str, str], words: tuple[str, ...], budget: float
) -> None:
    environment["XDG_RUNTIME_DIR"] = os.environ["XDG_RUNTIME_DIR"]
    with serving("calc"):
        assert start_ms(words, environment, subprocess.DEVNULL) < budget


def test_ls_on_a_terminal(home: str, environment: dict[str, str], terminal: int) -> None:
    environment["XDG_RUNTIME_DIR"] = os.environ["XDG_RUNTIME_DIR"]
    with serving("calc"):
        assert start_ms(("ls",), environment, terminal) < 105
