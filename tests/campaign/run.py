"""Run the campaign: every part in a process of its own, for an hour or for what is said.

    make campaign                # at least 60 minutes
    make campaign MINUTES=5      # a short one
    python tests/campaign/run.py --minutes 10 load soak

Two parts run at a time; those that measure, or need both cores themselves, run alone. The time is
shared by the weights of `TABLE`, anew whenever a part begins: what one did not need, the next ones
get. A part that fails does not end the campaign, but the campaign fails. What each part printed is
kept in build/campaign/, and the figures of all in report.md there; those of a whole campaign of at
least an hour are written into docs/reliability.md too.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import report
from part import Figures
from report import Outcome

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
OUTPUT = ROOT / "build" / "campaign"

WHOLE_MINUTES = 60.0
"""What a campaign takes that counts as one."""

LANES = 2
"""Parts that run at a time."""


@dataclass(frozen=True)
class Entry:
    """One part: its file's name, its share of the time, and whether nothing runs beside it.

    Alone are those that measure, and those that use both cores themselves.
    """

    name: str
    weight: float
    alone: bool = False


TABLE = [
    Entry("mutations", 17, alone=True),
    Entry("races", 10, alone=True),
    Entry("syscall_faults", 5),
    Entry("interruptions", 5),
    Entry("fuzz_parser", 16),
    Entry("fuzz_sockets", 7),
    Entry("model", 5),
    Entry("oldest_dependencies", 10),
    Entry("free_threaded", 1),
    Entry("load", 5, alone=True),
    Entry("soak_bites", 2, alone=True),
    Entry("soak", 13, alone=True),
]
"""Every part, and about how many minutes it needs for its aims, on two cores. What one leaves of
its time goes to the next ones."""


@dataclass
class Running:
    """A part that runs."""

    entry: Entry
    process: subprocess.Popen[bytes]
    began: float
    seconds: float

    @property
    def patience(self) -> float:
        """Seconds after which it hangs: an enumeration may take longer than it was told."""
        return 3 * self.seconds + 900


@dataclass
class Campaign:
    """The parts that wait, those that run, and what became of the others."""

    seconds: float
    folder: Path
    output: Path
    waiting: list[Entry]
    clock: Callable[[], float] = time.monotonic
    say: Callable[[str], None] = print
    running: list[Running] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.began = self.clock()

    def share(self, entry: Entry) -> float:
        """Return the seconds of a part that begins now: its part of the time that is left.

        At least half of what it had got at the beginning, however long the others took.
        """
        now = self.clock()
        left = LANES * (self.began + self.seconds - now)
        left -= sum(max(0.0, each.began + each.seconds - now) for each in self.running)
        waiting = sum(_cost(each) for each in [entry, *self.waiting])
        fair = LANES * self.seconds * entry.weight / sum(map(_cost, TABLE))
        return max(left * entry.weight / waiting, fair / 2)

    def run(self) -> list[Outcome]:
        """Run all of them, and return their outcomes in the table's order."""
        order = [entry.name for entry in self.waiting]
        try:
            while self.waiting or self.running:
                while self.waiting and self._has_room(self.waiting[0]):
                    self._begin(self.waiting.pop(0))
                self._wait()
        finally:
            for each in self.running:
                _kill(each.process)
        return sorted(self.outcomes, key=lambda outcome: order.index(outcome.name))

    def _has_room(self, entry: Entry) -> bool:
        if entry.alone or any(each.entry.alone for each in self.running):
            return not self.running
        return len(self.running) < LANES

    def _begin(self, entry: Entry) -> None:
        program = self.folder / f"{entry.name}.py"
        if not program.exists():
            self.say(f"{entry.name}: it is not there")
            return
        seconds = self.share(entry)
        figures = self.output / f"{entry.name}.json"
        figures.unlink(missing_ok=True)
        command = [sys.executable, "-W", "error", str(program)]
        command += ["--seconds", f"{seconds:.0f}", "--json", str(figures)]
        with open(self.output / f"{entry.name}.txt", "wb") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,  # its own processes end with it
            )
        self.running.append(Running(entry, process, self.clock(), seconds))
        self.say(f"{self._time()} {entry.name} begins, about {seconds:.0f} s")

    def _wait(self) -> None:
        """Wait a moment for one of them to end."""
        for each in list(self.running):
            try:
                each.process.wait(0.1)
            except subprocess.TimeoutExpired:
                if self.clock() - each.began < each.patience:
                    continue
            self.running.remove(each)
            self._end(each)

    def _end(self, part: Running) -> None:
        name = part.entry.name
        hung = part.process.poll() is None
        _kill(part.process)
        figures: Figures = {}
        file = self.output / f"{name}.json"
        if file.exists():
            figures = json.loads(file.read_text())
        passed = part.process.returncode == 0 and bool(figures)
        took = self.clock() - part.began
        self.outcomes.append(Outcome(name, _about(self.folder / f"{name}.py"), passed, figures))
        how = "passed" if passed else "HUNG" if hung else "FAILED"
        self.say(f"{self._time()} {name} {how} after {took:.0f} s")
        if not passed:
            text = (self.output / f"{name}.txt").read_text(errors="replace")
            self.say("".join(f"    {line}\n" for line in text.splitlines()[-20:]))

    def _time(self) -> str:
        minutes, seconds = divmod(round(self.clock() - self.began), 60)
        return f"[{minutes:3}:{seconds:02}]"


def _cost(entry: Entry) -> float:
    return entry.weight * (LANES if entry.alone else 1)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a part and what it started and left behind."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # nobody of the group is left
    process.wait()


def _about(program: Path) -> str:
    """Return the first line of a program's docstring."""
    return program.read_text().partition("\n")[0].strip('"')


def parts_in(folder: Path) -> list[str]:
    """Return the names of the parts that stand in a folder."""
    return sorted(
        path.stem
        for path in folder.glob("*.py")
        if not path.name.startswith("test_")
        and re.search(r"^ *run_as_program\(campaign", path.read_text(), re.MULTILINE)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign as the command line says; return its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=WHOLE_MINUTES)
    parser.add_argument("--write", action="store_true", help="into the document, if short as well")
    parser.add_argument("parts", nargs="*", help="only these, and the document stays as it is")
    options = parser.parse_args(arguments)
    unknown = set(options.parts) - {entry.name for entry in TABLE}
    if unknown:
        parser.error(f"there is no part {sorted(unknown)[0]}")
    chosen = [entry for entry in TABLE if not options.parts or entry.name in options.parts]
    OUTPUT.mkdir(parents=True, exist_ok=True)
    about = report.describe()
    campaign = Campaign(60 * options.minutes, HERE, OUTPUT, chosen)
    outcomes = campaign.run()
    about["minutes"] = f"{(time.monotonic() - campaign.began) / 60:.0f}"
    text = report.as_markdown(about, outcomes)
    (OUTPUT / "report.md").write_text(text)
    print(text)
    if not options.parts and (options.minutes >= WHOLE_MINUTES or options.write):
        report.write(text)
    failed = [outcome.name for outcome in outcomes if not outcome.passed]
    print(f"failed: {', '.join(failed)}" if failed else f"{len(outcomes)} parts passed")
    return 1 if failed or not outcomes else 0


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.exit(main())
