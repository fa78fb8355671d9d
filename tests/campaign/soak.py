"""Chaos soak: good clients whose every message is accounted for, beside liars, in five loops.

A host with a real main loop (select, Tk, GLib, Twisted, asyncio), in a process of its own, serves
good clients and liars in rounds; between two rounds everybody is quiet, and what the host has is
measured; then the server is closed and opened again, at times.

What must hold: no message lost, doubled or out of its order; `poll` never raised, and took no more
CPU time than its budget and its longest command; descriptors are back where they were; memory does
not grow; the log is not flooded; nothing was left to be collected; idle, nobody wakes.
"""

from __future__ import annotations

import math
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from fellows import PATIENCE, Fellow
from harness import wait_until
from loops import installed, screen
from part import Figures, run_as_program
from soak_commands import End, Reopen, Sample

from ipcpoll import Client

LOOPS = {"select": "select", "Tk": "_tkinter", "GLib": "gi", "Twisted": "twisted", "asyncio": ""}
"""The loops, and the module that each needs."""

MOST_CPU = 0.015
"""CPU seconds of a poll, without its longest command. The budget is 5 ms; on a busy machine what
others do to the caches counts as well."""

MOST_LINES = 25
"""Lines of the log for one server in a minute: one for each kind of mishap. A server's log begins
anew when it is opened anew."""

IDLE_SECONDS = 0.3
REOPEN_EACH = 4  # rounds
ENOUGH_SAMPLES = 12  # for a slope
GROWN_BYTES = 1 << 20
"""What the memory may have grown in the second half, whatever the slope: one arena of CPython's
allocator, which a single object keeps. It is a step, and not a slope, but looks like one when it
comes late. A byte for each message of a long soak would be more."""

GROWN_BLOCKS = 500
"""The same for the blocks that CPython's allocator has given out. Caches of a bounded size (the
decoder's, the type cache's) fill up slowly."""

GROWN_BYTES_AT_FIRST = 4 << 20  # in a run that is too short for a slope


SUMMED = ("lost", "doubled", "polls", "polls that raised")
"""What the figures tell of all loops together."""


class Slope(NamedTuple):
    """A straight line through samples, with its standard error."""

    per_second: float
    error: float

    def __str__(self) -> str:
        return f"{self.per_second:.1f} ± {self.error:.1f}"


def fit(points: list[tuple[float, float]]) -> Slope:
    """Return the least squares' line through points, with its standard error."""
    n = len(points)
    mean_x, mean_y = (sum(point[i] for point in points) / n for i in (0, 1))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    rest = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in points)
    return Slope(slope, math.sqrt(rest / (n - 2) / spread))


class Clients:
    """Those that every host meets: good ones of two kinds, and liars."""

    def __init__(self) -> None:
        with ExitStack() as stack:
            self.liar = stack.enter_context(Fellow("soak_liars.py"))
            self.mixer = stack.enter_context(Fellow("soak_clients.py"))
            self.pipeliner = stack.enter_context(Fellow("soak_clients.py"))
            self._end = stack.pop_all()

    def turn_to(self, path: str) -> None:
        """Let all of them go to another host."""
        for fellow in (self.liar, self.mixer, self.pipeliner):
            fellow.do("at", path)

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_: object) -> None:
        self._end.close()


class Soak:
    """One loop: its host, who is served, and what was measured between the rounds."""

    def __init__(self, loop: str, clients: Clients, stack: ExitStack, broken: str) -> None:
        self.clients = clients
        self.loop = loop
        self.messages: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.samples: list[tuple[float, dict[str, float]]] = []
        environment = {}
        if loop == "Tk":
            environment["DISPLAY"] = stack.enter_context(screen())
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="ipcpoll-"))
        path = f"{directory}/{loop}"
        start = stack.enter_context
        self.host = start(
            Fellow("soak_host.py", loop, path, *broken.split(), environment=environment)
        )
        assert self.host.answer() == "ready"
        clients.turn_to(path)
        self.judge = start(Client(path, timeout=PATIENCE))

    def round(self, seconds: float) -> None:
        """Let all of them do what they do, and then be quiet; measure."""
        clients = self.clients
        clients.liar.order("lie", seconds)
        clients.mixer.order("mix", seconds)
        clients.pipeliner.order("pipeline", seconds, 4)
        self.messages.update(clients.mixer.answer(seconds))
        self.messages.update(clients.pipeliner.answer(seconds))
        self.faults.update(clients.liar.answer(seconds))
        self.samples.append((time.monotonic(), self.quiet()))

    def quiet(self) -> dict[str, float]:
        """Wait until nobody is left in the host but the judge; return what it has then."""
        found: dict[str, float] = {}

        def is_quiet() -> bool:
            found.update(self.judge.call(Sample()))
            return found["clients"] == 1 and not found["busy"]

        wait_until(is_quiet, f"quiet in {self.loop}: {found}")
        return found

    def reopen(self) -> None:
        """Close the server in a command, and open it anew."""
        self.judge.call(Reopen())
        self.faults["close and reopen"] += 1

    def end(self) -> dict[str, Any]:
        """See that an idle host sleeps, end it, and return what it counted."""
        polls = self.quiet()["polls"]
        began = time.monotonic()
        wait_until(lambda: time.monotonic() > began + IDLE_SECONDS)
        assert self.quiet()["polls"] <= polls + 3, f"{self.loop}: idle, it polls"
        self.judge.call(End())
        said = self.host.answer()
        errors = self.host.end()
        assert not errors, f"{self.loop}: {errors}"
        return said


def soak(
    loop: str, seconds: float, clients: Clients, *, broken: str = ""
) -> tuple[Counter[str], Counter[str], Figures]:
    """Soak one loop; return its good messages, its faults, and its figures.

    `broken` is a way to break the library, of soak_breaks.py.
    """
    with ExitStack() as stack:
        it = Soak(loop, clients, stack, broken)
        began = time.monotonic()
        each = min(6.0, max(0.3, seconds / 40))
        it.round(each)  # what is made once, is made now
        rounds = 0
        while rounds < 2 or time.monotonic() < began + seconds:
            it.round(each)
            rounds += 1
            if rounds % REOPEN_EACH == 1:
                it.reopen()
        it.samples.append((time.monotonic(), it.quiet()))
        took = time.monotonic() - began
        said = it.end()
    figures: Figures = {
        "good messages": it.messages.total() - it.messages["turned away"],
        "faults": it.faults.total(),
        "good messages per second": round(it.messages.total() / took),
        "lost": said["lost"],
        "doubled": said["doubled"],
        "polls": said["polls"],
        "polls that raised": said["polls that raised"],
        "longest poll without its longest command, CPU ms": round(1e3 * said["longest poll"], 2),
        "polls of more than 10 ms so": said["polls of more than twice the budget"],
        "log lines": said["log lines"],
    }
    figures |= memory(loop, it.samples)
    judge(loop, said, took, it)
    return it.messages, it.faults, figures


def judge(loop: str, said: dict[str, Any], took: float, it: Soak) -> None:
    """Hold what the host counted against what must be."""
    assert not said["violations"], f"{loop}: {said['violations']}"
    assert not said["problems"], f"{loop}: {said['problems']}"
    for kind, counted in (
        ("nested loop", "nested loops"),
        ("fork", "forks"),
        ("close and reopen", "servers"),
    ):
        extra = 1 if counted == "servers" else 0
        assert said[counted] == it.faults[kind] + extra, f"{loop}: {kind}: {said}"
    assert said["longest poll"] <= MOST_CPU, f"{loop}: a poll took {said['longest poll']} s: {said}"
    most = MOST_LINES * (said["servers"] + took / 60)
    assert said["log lines"] <= most, f"{loop}: {said['log lines']} lines in the log"
    descriptors = {sample["descriptors"] for _, sample in it.samples}
    assert len(descriptors) == 1, f"{loop}: descriptors: {sorted(descriptors)}"


def memory(loop: str, samples: list[tuple[float, dict[str, float]]]) -> Figures:
    """Return how the memory grew in the second half of the time; it must not."""
    half = samples[len(samples) // 2 :]
    if len(half) < ENOUGH_SAMPLES:
        grown = samples[-1][1]["bytes"] - samples[0][1]["bytes"]
        assert grown <= GROWN_BYTES_AT_FIRST, f"{loop}: the memory grew by {grown} bytes"
        return {"memory grown, KiB": round(grown / 1024)}
    seconds = half[-1][0] - half[0][0]
    slopes = {
        what: fit([(when, sample[what]) for when, sample in half]) for what in ("bytes", "blocks")
    }
    figures: Figures = {
        f"{what} grown in the second half, per second": str(slope) for what, slope in slopes.items()
    }
    for what, most in (("bytes", GROWN_BYTES), ("blocks", GROWN_BLOCKS)):
        slope = slopes[what]
        grown = slope.per_second * seconds
        assert slope.per_second <= 3 * slope.error or grown <= most, (
            f"{loop}: a slope of the memory: {grown:.0f} {what} in {seconds:.0f} s: {figures}"
        )
    return figures


def available(loop: str) -> bool:
    """Return whether this Python and this machine have what a loop needs."""
    module = LOOPS[loop]
    return (not module or installed(module)) and (loop != "Tk" or shutil.which("Xvfb") is not None)


def campaign(seconds: float) -> Figures:
    """Soak every loop, one after the other."""
    loops = [loop for loop in LOOPS if available(loop)]
    messages: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    summed: Counter[str] = Counter()
    of_loops: Figures = {}
    with Clients() as clients:
        for loop in loops:
            good, bad, figures = soak(loop, seconds / len(loops), clients)
            messages += good
            faults += bad
            summed.update({name: int(figures.pop(name)) for name in SUMMED})
            of_loops |= {f"{loop}: {name}": figure for name, figure in figures.items()}
            print(f"{loop}: {figures}", flush=True)
    turned_away = messages.pop("turned away", 0)
    return {
        "loops": ", ".join(loops),
        "good messages": messages.total(),
        **summed,
        "faults injected": faults.total(),
        "good clients turned away for want of a descriptor, and back": turned_away,
        **{f"good messages: {kind}": count for kind, count in messages.most_common()},
        **{f"fault: {kind}": count for kind, count in faults.most_common()},
        **of_loops,
    }


if __name__ == "__main__":
    run_as_program(campaign, about=__doc__)
