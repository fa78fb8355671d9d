"""The host of the soak: ``soak_host.py LOOP SOCKET [BREAK]``. A program that serves, and counts.

It answers ``"ready"``, and at its end what it counted. It keeps a
sentence for everything that must not happen: an exception out of `poll` or in a callback of the
loop, a warning, a message lost or doubled.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import random
import resource
import select
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from importlib import import_module
from typing import Any

import soak_breaks
from harness import readable
from process_memory import anonymous_bytes
from soak_commands import COMMANDS, Ledger, answer_to

from ipcpoll import Server, UsageError

LOOPS = {
    "Tk": ("case_tk", "TestTk"),
    "GLib": ("case_glib", "TestGLib"),
    "Twisted": ("case_twisted", "TestTwisted"),
    "asyncio": ("case_asyncio", "TestAsyncio"),
}
"""The loops of the conformance suite, and where it has their hooks. The other one is `Select`."""

BUDGET = 0.005
TICK_SECONDS = 0.005
STARVED_SECONDS = 0.03
CHILD_SECONDS = 0.1
MOST_TAKEN = 200  # descriptors that are left to take when the host starves


class Select:
    """The loop that everybody has written: select(2), then poll."""

    def __init__(self) -> None:
        self.server: Server[Any] | None = None
        self.ctx: Any = None
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.running = False

    def open_loop(self) -> None: ...
    def close_loop(self) -> None: ...

    def reported(self) -> list[BaseException]:
        return []

    def attach(self, pollable: Server[Any], ctx: Any) -> None:
        self.server, self.ctx = pollable, ctx

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        self.timers.append((time.monotonic() + seconds, function))

    def stop_loop(self) -> None:
        self.running = False

    def run_loop(self) -> None:
        self.running = True
        while self.running:
            self.turn()

    def run_nested(self, seconds: float) -> None:
        over: list[bool] = []
        self.call_later(seconds, lambda: over.append(True))
        while not over:
            self.turn()

    def turn(self) -> None:
        assert self.server is not None
        now = time.monotonic()
        next_timer = min((when for when, _ in self.timers), default=now + 1)
        ready, _, _ = select.select([self.server], [], [], max(0.0, next_timer - now))
        if ready:
            self.server.poll(self.ctx)
        now = time.monotonic()
        due = [timer for timer in self.timers if timer[0] <= now]
        self.timers = [timer for timer in self.timers if timer[0] > now]
        for _, function in due:
            function()


class Measured(Server[Any]):
    """A server whose polls are measured, in CPU time."""

    def poll(
        self, ctx: Host, *, max_commands: int | None = None, max_seconds: float | None = None
    ) -> int:
        outer, ctx.longest = ctx.longest, 0.0
        began = time.thread_time()
        try:
            return super().poll(ctx, max_commands=max_commands, max_seconds=max_seconds)
        except BaseException as error:
            ctx.raised += 1
            ctx.problems.append(f"poll raised {error!r}")
            raise
        finally:
            ctx.count_poll(time.thread_time() - began - ctx.longest)
            ctx.longest = outer


class Host(logging.Handler):
    """The context of the commands. It is the log's handler as well, and counts its lines."""

    def __init__(self, loop: Any, path: str) -> None:
        super().__init__()
        self.loop = loop
        self.path = path
        self.random = random.Random(path)
        self.ledger = Ledger()
        self.late: list[tuple[Future[bytes], int]] = []
        self.longest = 0.0  # CPU seconds of a command in the poll that is running
        self.problems: list[str] = []
        self.polls = self.nested = self.forks = self.starved = self.servers = self.lines = 0
        self.over_budget = self.raised = 0
        self.longest_poll = 0.0  # without its longest command
        self.children: dict[int, float] = {}
        self.taken: list[int] = []
        self.open()

    def open(self) -> None:
        """Open the server, and attach it to the loop."""
        self.server = Measured(self.path, COMMANDS)
        self.servers += 1
        self.loop.attach(self.server, self)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines += 1

    def count_poll(self, seconds: float) -> None:
        self.polls += 1
        self.longest_poll = max(self.longest_poll, seconds)
        if seconds > 2 * BUDGET:
            self.over_budget += 1

    def tick(self) -> None:
        """Answer what is late, bury children. The loop's timer."""
        late, self.late = self.late, []
        for future, number in late:
            if future.set_running_or_notify_cancel():
                future.set_result(answer_to(number))
        for pid, began in list(self.children.items()):
            gone, status = os.waitpid(pid, os.WNOHANG)
            if gone:
                del self.children[pid]
                if status:
                    self.problems.append(f"a forked child ended with {status}")
            elif time.monotonic() > began + 60:
                self.problems.append("a forked child does not end")

    # For the commands

    def nest(self, seconds: float) -> None:
        self.nested += 1
        if hasattr(self.loop, "can_nest") and not self.loop.can_nest:
            end = time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0:
                if readable(self.server, left):
                    self.server.poll(self)
        else:
            self.loop.run_nested(seconds)

    def fork(self) -> None:
        self.forks += 1
        pid = os.fork()
        if pid:
            self.children[pid] = time.monotonic()
            return
        status = 1
        try:
            try:
                self.server.poll(self)
            except UsageError:
                status = 0
            select.select([], [], [], self.random.uniform(0, CHILD_SECONDS))
        finally:
            os._exit(status)

    def starve(self) -> None:
        if self.taken:
            return
        self.starved += 1
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, highest + MOST_TAKEN), hard))
        with suppress(OSError):
            while True:
                self.taken.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

        def give_back() -> None:
            while self.taken:
                os.close(self.taken.pop())
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

        self.loop.call_later(STARVED_SECONDS, give_back)

    def sample(self) -> dict[str, float]:
        stats = self.server.stats()
        return {
            "bytes": anonymous_bytes(),
            "blocks": sys.getallocatedblocks(),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "clients": stats["clients"],
            "busy": stats["in_flight"] + len(self.late) + len(self.children) + len(self.taken),
            "polls": self.polls,
        }

    def reopen(self) -> None:
        self.server.close()
        self.open()

    def end(self) -> None:
        self.loop.stop_loop()


def every(loop: Any, seconds: float, function: Callable[[], None]) -> None:
    """Call a function again and again, by the loop's timer."""
    if hasattr(loop, "context"):  # GLib's: PyGObject 3.42 leaks 110 bytes with each new timer
        from gi.repository import GLib

        def go_on() -> bool:
            function()
            return True

        GLib.timeout_add(round(seconds * 1000), go_on)
        return

    def again() -> None:
        function()
        loop.call_later(seconds, again)

    again()


def main(name: str, path: str, broken: str = "") -> None:
    """Serve in a loop until a command ends it, with a library that may be broken on purpose."""
    if broken:
        soak_breaks.BY_NAME[broken].do()
    if name in LOOPS:
        module, cls = LOOPS[name]
        loop = getattr(import_module(module), cls)()
    else:
        loop = Select()
    loop.open_loop()
    host = Host(loop, path)
    logger = logging.getLogger("ipcpoll")
    logger.addHandler(host)
    logger.propagate = False
    sys.unraisablehook = lambda what: host.problems.append(f"unraisable: {what.exc_value!r}")
    gc.collect()
    gc.freeze()
    every(loop, TICK_SECONDS, host.tick)
    print(json.dumps("ready"), flush=True)
    loop.run_loop()
    host.server.close()
    host.problems += [f"the loop was told of {error!r}" for error in loop.reported()]
    loop.close_loop()
    gc.collect()
    print(
        json.dumps(
            {
                "problems": host.problems[:20],
                "violations": host.ledger.violations[:20],
                "lost": host.ledger.lost,
                "doubled": host.ledger.doubled,
                "polls": host.polls,
                "polls that raised": host.raised,
                "polls of more than twice the budget": host.over_budget,
                "longest poll": host.longest_poll,
                "nested loops": host.nested,
                "forks": host.forks,
                "starved": host.starved,
                "servers": host.servers,
                "log lines": host.lines,
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
