"""What a long job takes from the others: a generator of some 10 s in examples/pygame_balls.py.

The game draws 60 frames a second (into no window) and serves clients through the rest of each. A
client makes small calls one at a time, at any moment of a frame. In each round it does so while the
game has nothing else to do, and again while another client has it `Search`, which gives its turn
away after each ball that it has tried: after half a millisecond or so. The aims: the frame rate
stays, and the 99th percentile of what a call takes at most doubles.
"""

from __future__ import annotations

import math
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # what all benchmarks share
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

from _measure import Options, alternate, ratio, run, table, working_directory
from balls import Balls, Frames, Quit

import ipcpoll

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
os.environ["PYTHONPATH"] = os.pathsep.join([str(EXAMPLES), os.environ.get("PYTHONPATH", "")])

AIM = 2.0
BALLS = (30, 1000)  # 1,000 take some milliseconds of each frame to be drawn
STEPS = 16_000  # of the job
IDLE_SECONDS = 6.0
LOOK_EVERY = 10  # calls
# Without pauses, 20,000 calls a second would be made while nothing is drawn, and 60 that wait for
# a frame. So a call comes at any moment of a frame.
MOST_PAUSE = 0.006  # seconds
MOST_QUEUED = 100_000  # nanoseconds; to be woken takes a few of them


@dataclass(frozen=True)
class Game:
    """It runs in a process of its own."""

    path: str
    pid: int


@dataclass(frozen=True)
class Sample:
    """What the calls of one client took, in microseconds, and the game's frames a second."""

    took: list[float]
    rate: float
    seconds: float
    undisturbed: list[float]  # of `took`: neither process had to wait for a core meanwhile

    def derived(self) -> dict[str, float]:
        """Return what is written beside the fields."""
        return {
            "p50": percentile(self.took, 50),
            "p99": percentile(self.took, 99),
            "undisturbed p99": percentile(self.undisturbed, 99),
        }

    @property
    def share(self) -> float:
        return 100 * len(self.undisturbed) / len(self.took)


def percentile(took: list[float], percent: int) -> float:
    return sorted(took)[len(took) * percent // 100] if took else math.nan


@contextmanager
def queue_clock(*pids: int) -> Generator[Callable[[], int]]:
    """Give what tells how many nanoseconds processes were ready to run, and did not run."""
    with ExitStack() as stack:
        files = [stack.enter_context(open(f"/proc/{pid}/schedstat", "rb", 0)) for pid in pids]
        yield lambda: sum(int(os.pread(file.fileno(), 99, 0).split()[1]) for file in files)


def measure(game: Game, go_on: Callable[[float], bool]) -> Sample:
    """Make one call after the other, as long as `go_on` says, which gets the seconds so far."""
    now = time.perf_counter_ns
    took: list[float] = []
    undisturbed: list[float] = []
    with ipcpoll.Client(game.path) as client, queue_clock(game.pid, os.getpid()) as queued:
        first, began = client.call(Frames()), now()
        last, ended = first, began
        while not took or go_on((ended - began) / 1e9):
            for _ in range(LOOK_EVERY):
                time.sleep(random.uniform(0, MOST_PAUSE))
                queued_before, before = queued(), now()
                last = client.call(Frames())
                ended = now()
                took.append((ended - before) / 1000)
                if queued() - queued_before < MOST_QUEUED:
                    undisturbed.append(took[-1])
    seconds = (ended - began) / 1e9
    return Sample(took, (last - first) / seconds, seconds, undisturbed)


def measure_idle(game: Game, seconds: float) -> Sample:
    return measure(game, lambda so_far: so_far < seconds)


def measure_busy(game: Game, tries: int) -> Sample:
    searching = Path(__file__).with_name("_searching.py")
    command = [sys.executable, str(searching), game.path, str(tries)]
    with started(command) as job:
        sample = measure(game, lambda _: job.poll() is None)
        if job.returncode:
            raise RuntimeError("the job has failed")
    return sample


@contextmanager
def started(command: list[str]) -> Generator[subprocess.Popen[bytes]]:
    """Run a process that prints a line when it is ready; it is ended in any case."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise RuntimeError(f"{Path(command[1]).name} did not start")
            yield process
        finally:
            process.kill()


@contextmanager
def opened(path: str) -> Generator[Game]:
    os.environ["SDL_VIDEODRIVER"] = "dummy"
    os.environ["PYGAME_HIDE_SUPPORT_PROMPT"] = "1"
    command = [sys.executable, str(EXAMPLES / "pygame_balls.py"), "--address", path]
    with started(command) as process:
        yield Game(path, process.pid)
        ipcpoll.send(Quit(), path)
        process.wait()


def cells(each: list[Sample], base: list[Sample]) -> list[str]:
    row = [f"{statistics.median(sample.seconds for sample in each):.1f}"]
    row.append(f"{statistics.median(sample.rate for sample in each):.1f}")
    row.append(f"{statistics.median(percentile(sample.took, 50) for sample in each):.0f}")
    row += percentile_99([sample.took for sample in each], [sample.took for sample in base])
    row.append(f"{statistics.median(sample.share for sample in each):.0f} %")
    ours, others = ([sample.undisturbed for sample in samples] for samples in (each, base))
    return row + percentile_99(ours, others)


def percentile_99(each: list[list[float]], base: list[list[float]]) -> list[str]:
    ours, others = ([percentile(took, 99) for took in samples] for samples in (each, base))
    return [f"{statistics.median(ours):.0f}", ratio(ours, others)]


def benchmark(options: Options) -> None:
    steps, seconds = (1000, 0.2) if options.quick else (STEPS, IDLE_SECONDS)
    print("Microseconds for one call (medians of the rounds), and ratios within a round: over the")
    print("same game without the job. Undisturbed calls are those during which neither the game")
    print("nor the client was ready to run and had no core.\n")
    with working_directory() as directory, opened(str(directory / "game")) as game:

        def play(balls: int, *, job: bool) -> Sample:
            ipcpoll.send(Balls(balls), game.path)
            return measure_busy(game, steps // balls) if job else measure_idle(game, seconds)

        kinds = {
            f"{balls} balls{', a long job' * job}": partial(play, balls, job=job)
            for balls in BALLS
            for job in (False, True)
        }
        samples = alternate(options.rounds, kinds)
    options.keep("sliced job", samples)
    ratio_head = f"ratio (aim: {AIM:.0f})"
    head = ["game", "seconds", "frames/s", "p50", "p99", ratio_head]
    rows = [[name, *cells(each, samples[name.partition(",")[0]])] for name, each in samples.items()]
    table([*head, "undisturbed", "their p99", ratio_head], rows)


if __name__ == "__main__":
    run(benchmark, about=__doc__, rounds=3)
