"""Processes that obey orders: the clients of a part, and hosts in another process.

A fellow is a program beside this file that ends with `take_orders`. An order is one line, a JSON
list of a function's name and its arguments; what the function returns is one line back. A fellow
ends with its input, and `Fellow.answer` raises what went wrong in it.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Never

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
PATIENCE = float(os.environ.get("IPCPOLL_PATIENCE", "60"))
"""Seconds by which an answer may be late; only a failure takes as long."""


class Fellow:
    """A process that is told what to do. As a context manager it ends with the block."""

    def __init__(
        self, program: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> None:
        paths = [str(TESTS.parent), str(TESTS / "support"), str(TESTS / "attach"), str(HERE)]
        self.name = f"{program} {' '.join(arguments)}"
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(HERE / program), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(environment or {})},
        )

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is an answer."""
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def order(self, function: str, *arguments: Any) -> None:
        """Let it do something. The answer is to be taken before the next order."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([function, *arguments]) + "\n")
        self.process.stdin.flush()

    def answered(self, seconds: float = 0.0) -> bool:
        """Return whether there is an answer, or the end, within the time."""
        poll = select.poll()
        poll.register(self, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def answer(self, seconds: float = 0.0) -> Any:
        """Wait for the answer, at most so long and the patience; raise what went wrong."""
        assert self.process.stdout is not None
        assert self.answered(seconds + 2 * PATIENCE), f"{self.name} hangs"
        line = self.process.stdout.readline()
        if not line:
            _, errors = self.process.communicate()
            raise AssertionError(f"{self.name} ended with {self.process.returncode}:\n{errors}")
        return json.loads(line)

    def do(self, function: str, *arguments: Any, seconds: float = 0.0) -> Any:
        """Give an order and wait for the answer."""
        self.order(function, *arguments)
        return self.answer(seconds)

    def end(self) -> str:
        """Let it end by itself, which it must do well; return what it wrote to its errors."""
        try:
            _, errors = self.process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} does not end") from None
        assert self.process.returncode == 0, f"{self.name}: {errors}"
        return errors

    def __enter__(self) -> Fellow:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def do_all(fellows: Sequence[Fellow], function: str, *arguments: Any, seconds: float) -> list[Any]:
    """Let all of them do the same at the same time; return the answers."""
    for fellow in fellows:
        fellow.order(function, *arguments)
    return [fellow.answer(seconds) for fellow in fellows]


def take_orders(functions: Mapping[str, Callable[..., Any]]) -> Never:
    """Do what is told until the input ends, then end the process."""
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(json.dumps(functions[name](*arguments)), flush=True)
    sys.exit(0)
