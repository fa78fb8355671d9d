"""examples/trio_service.py as its users run it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from harness import PATIENCE, ROOT
from loops import need

pytestmark = pytest.mark.once

Ask = Callable[..., tuple[int, str, str]]


def start(directory: str, *words: str) -> subprocess.Popen[str]:
    script = str(ROOT / "examples" / "trio_service.py")
    return subprocess.Popen(
        [sys.executable, script, "--address", f"{directory}/socket", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def service(directory: str) -> Iterator[subprocess.Popen[str]]:
    need("trio", "pip install trio")
    with start(directory, "serve") as service:
        assert service.stdout is not None
        assert service.stdout.readline() == f"serving at {directory}/socket\n"
        yield service
        service.kill()


@pytest.fixture
def ask(directory: str) -> Ask:
    def ask(*words: str) -> tuple[int, str, str]:
        process = start(directory, *words)
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err

    return ask


def test_refusals(service: subprocess.Popen[str], ask: Ask) -> None:
    assert ask("start", "tea", "1000") == (0, "", "")
    assert ask("start", "tea", "5") == (1, "", "trio_service.py: tea is running already [taken]\n")
    assert ask("cancel", "egg") == (1, "", "trio_service.py: there is no timer egg [unknown]\n")
    code, out, err = ask("left")
    assert (code, out.partition(" in ")[0], err) == (0, "tea", "")
    assert service.poll() is None


def test_stop_is_answered(service: subprocess.Popen[str], ask: Ask, directory: str) -> None:
    """A timer that runs does not ring any more."""
    assert ask("start", "tea", "1000") == (0, "", "")
    assert ask("stop") == (0, "", "")
    assert service.communicate(timeout=PATIENCE) == ("", "")
    assert service.returncode == 0
    assert not os.path.exists(f"{directory}/socket")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_and_its_socket(
    service: subprocess.Popen[str], ask: Ask, directory: str, number: signal.Signals
) -> None:
    assert ask("start", "tea", "1000") == (0, "", "")
    service.send_signal(number)
    assert service.communicate(timeout=PATIENCE) == ("", "")
    assert service.returncode == 0
    assert not os.path.exists(f"{directory}/socket")
