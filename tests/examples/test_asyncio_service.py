"""examples/asyncio_service.py as its users run it."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import PATIENCE, ROOT

pytestmark = pytest.mark.once

SERVICE = str(ROOT / "examples" / "asyncio_service.py")


def command(address: str, *words: str) -> list[str]:
    return [sys.executable, SERVICE, *words, "--address", address]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}


class Service:
    """A service that runs in a directory with two files."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.address = f"{directory}/socket"
        self.sums: dict[str, str] = {}
        for name in ("a", "b"):
            Path(directory, name).write_text(name)
            self.sums[name] = hashlib.sha256(name.encode()).hexdigest()
        self.process = subprocess.Popen(
            command(self.address, "serve"),
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.line() == f"serving at {self.address}"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def ask(self, *words: str) -> str:
        done = subprocess.run(
            command(self.address, *words),
            cwd=self.directory,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def found(self, name: str) -> str:
        return f"{self.sums[name]}  {self.directory}/{name}"

    def end(self) -> tuple[int, str]:
        _, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, err


@pytest.fixture
def service(directory: str) -> Iterator[Service]:
    service = Service(directory)
    yield service
    service.process.kill()
    service.process.communicate()


def test_jobs_are_worked_off(service: Service) -> None:
    assert service.ask("status") == "0 not finished, 0 done\n"
    assert service.ask("submit", "a", "missing", "b") == "3\n"
    lines = {service.line() for _ in range(3)}
    missing = f"No such file or directory  {service.directory}/missing"
    assert lines == {service.found("a"), service.found("b"), missing}
    first, *others = service.ask("status").splitlines()
    assert first == "0 not finished, 3 done"
    assert set(others) == lines


def test_paused_and_resumed(service: Service) -> None:
    service.ask("pause")
    assert service.ask("submit", "a") == "1\n"
    assert service.ask("submit", "b", "a") == "3\n"
    assert service.ask("status") == "3 not finished, paused, 0 done\n"
    service.ask("resume")
    assert sorted(service.line() for _ in range(3)) == sorted(map(service.found, "aab"))
    assert service.ask("status").startswith("0 not finished, 2 done\n")


def test_stop_is_answered(service: Service) -> None:
    service.ask("pause")
    service.ask("submit", "a")
    assert service.ask("stop") == ""
    assert service.end() == (0, "")
    assert not os.path.exists(service.address)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_and_its_socket(service: Service, number: signal.Signals) -> None:
    service.process.send_signal(number)
    assert service.end() == (0, "")
    assert not os.path.exists(service.address)


@pytest.mark.parametrize(
    ("words", "code", "found"),
    [
        (["submit", "--help"], 0, "paths [paths ...]"),
        ([], 2, "which verb?"),
        (["sing"], 2, "invalid choice: 'sing'"),
        (["submit"], 2, "required: paths"),
        (["status"], 1, "asyncio_service.py: "),
    ],
)
def test_alone(directory: str, words: list[str], code: int, found: str) -> None:
    done = subprocess.run(
        command(f"{directory}/nobody", *words),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert found in " ".join((done.stdout + done.stderr).split())


def test_service_without_workers_is_refused(directory: str) -> None:
    """It would take jobs, and never do one."""
    done = subprocess.run(
        command(f"{directory}/socket", "serve", "--workers", "0"),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    assert "--workers: nothing would be done by fewer than 1" in done.stderr
