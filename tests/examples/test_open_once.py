"""examples/open_once.py as its users run it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import PATIENCE, ROOT

pytestmark = pytest.mark.once

OPEN_ONCE = str(ROOT / "examples" / "open_once.py")


class Desk:
    """A directory with some files, and processes that run the example in it."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.processes: list[subprocess.Popen[str]] = []
        for name in ("letter.txt", "photo.png"):
            Path(directory, name).write_text(name)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, OPEN_ONCE, "--address", f"{self.directory}/s", *arguments],
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def run(self, *arguments: str) -> tuple[int, str, str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err


@pytest.fixture
def desk(directory: str) -> Iterator[Desk]:
    desk = Desk(directory)
    yield desk
    for process in desk.processes:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_files_open_in_the_viewer_that_runs(desk: Desk) -> None:
    viewer = desk.start("letter.txt")
    says = f"viewer {viewer.pid}: {desk.directory}"
    assert line(viewer) == f"{says}/letter.txt is open (1 in all)\n"
    assert desk.run("photo.png") == (0, "handed over; the viewer has 2 files open\n", "")
    assert line(viewer) == f"{says}/photo.png is open (2 in all)\n"
    code, _, err = desk.run("nothing.txt")
    assert code == 1
    assert err == f"open_once.py: there is no {desk.directory}/nothing.txt [no-such-file]\n"
    assert desk.run("--quit") == (0, "", "")
    assert viewer.communicate(timeout=PATIENCE) == ("closed with 2 files open\n", "")
    assert viewer.returncode == 0
    assert sorted(os.listdir(desk.directory)) == ["letter.txt", "photo.png"]


def test_viewer_that_was_killed_is_replaced(desk: Desk) -> None:
    first = desk.start("letter.txt")
    line(first)
    first.kill()
    first.wait()
    second = desk.start("photo.png")
    assert line(second) == (f"viewer {second.pid}: {desk.directory}/photo.png is open (1 in all)\n")
    second.send_signal(signal.SIGINT)
    second.communicate(timeout=PATIENCE)
    assert second.returncode == 130


def test_nothing_to_do(desk: Desk) -> None:
    code, _, err = desk.run()
    assert code == 2
    assert "name a file, or --quit" in err
    code, _, err = desk.run("--quit")
    assert code == 1
    assert (
        err == f"open_once.py: the program does not run: there is no socket at {desk.directory}/s\n"
    )
