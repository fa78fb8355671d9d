"""Every system call that ipcpoll makes fails once, and for ever: complete enumeration.

    python tests/campaign/syscall_faults.py --seconds 600

For each scenario, each kind of call that it makes, each errno and each N: the N-th call of this
kind fails, once or from then on, until a run ends without meeting it. Also where the kernel can't
give such an error; then the promises hold all the same. `fault_runs` has what is
checked after each run. It ends early when every run was made.

A run that fails says which it is; ``--show calls recv 2 ECONNRESET`` makes all runs whose words
begin so, and does not stop at a failure.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

sys.path.insert(0, os.path.abspath(f"{__file__}/../../support"))

from fault_runs import FOREIGN, UNRAISABLE, Lines, Run, watched
from fault_scenarios import SCENARIOS
from faulty_calls import ERRNOS, Faults
from part import Figures, run_as_program

Plan: TypeAlias = "tuple[Callable[[Run], None], str, int, int, bool]"
"""A scenario, and of its calls: the kind, which one, the errno, whether for ever."""


def campaign(seconds: float, part: int = 0, of: int = 1) -> Figures:
    """Make every run, or every `of`-th from the `part`-th on; return what was counted."""
    deadline = time.monotonic() + seconds
    runs = 0
    met: Counter[str] = Counter()
    complete = of == 1
    with _world() as (directory, faults, lines):
        plans = list(_plans(directory, faults, lines))
        for plan in plans[part::of]:
            if time.monotonic() >= deadline:
                complete = False
                break
            run(plan, directory, faults, lines)
            runs += 1
            met[plan[1]] += bool(faults.met)
    assert runs, "nothing was run"
    return {
        "runs with a fault": met.total(),
        "runs": runs,
        "runs of the complete enumeration": len(plans),
        "complete": "yes" if complete else "no",
        "kinds of system calls": len(met),
        "scenarios": len(SCENARIOS),
        "violations": 0,
    }


def _plans(directory: str, faults: Faults, lines: Lines) -> Iterator[Plan]:
    """Give every run: how often a scenario makes a call is learned without a fault."""
    for scenario in SCENARIOS:
        counts = run((scenario, "nothing", 0, 0, False), directory, faults, lines)
        for kind, count in counts.items():
            for number in ERRNOS:
                for for_ever in (False, True):
                    for at in range(1, count + 1):
                        yield scenario, kind, at, number, for_ever


def run(plan: Plan, directory: str, faults: Faults, lines: Lines) -> Counter[str]:
    """Make one run; return the calls that its scenario made."""
    scenario, kind, at, number, for_ever = plan
    lines.lines.clear()
    this = Run(directory, faults, lines)
    try:
        faults.plan(kind, at, number, for_ever=for_ever)
        faults.on = True
        try:
            scenario(this)
        finally:
            faults.on = False
            faults.idle = lambda: None
        counts = faults.counts
        this.look_back()
        assert not UNRAISABLE, UNRAISABLE
    except BaseException as error:
        error.add_note(f"in {scenario.__name__}: {faults}\nlog: {lines.lines}")
        this.clear_up()
        raise
    return counts


@contextmanager
def _world() -> Iterator[tuple[str, Faults, Lines]]:
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="ipcpoll-", dir=place) as directory:
        with open(f"{directory}/{FOREIGN}", "w") as file:
            file.write("precious")
        before = os.stat(file.name)
        with Faults() as faults, watched() as lines:
            yield directory, faults, lines
        after = os.stat(file.name)
        assert before.st_mtime_ns == after.st_mtime_ns, "another file was touched"
        assert os.path.samestat(before, after), "another file was replaced"


def show_all(only: str = "") -> None:
    """Make every run whose words begin so, and print each violation once, with one example."""
    seen: Counter[str] = Counter()
    runs = 0
    began = time.monotonic()
    with _world() as (directory, faults, lines):
        for plan in _plans(directory, faults, lines):
            words = " ".join(
                (plan[0].__name__, plan[1], str(plan[2]), errno.errorcode[plan[3]], str(plan[4]))
            )
            if not words.startswith(only):
                continue
            runs += 1
            try:
                run(plan, directory, faults, lines)
            except BaseException as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                key = f"{type(error).__name__} {str(error)[:150]} at {where.name}:{where.lineno}"
                seen[key] += 1
                if seen[key] == 1 or only:
                    print(words, key, flush=True)
                if only:
                    traceback.print_exception(error)
                del error
                gc.collect()
                UNRAISABLE.clear()
    print(runs, "runs in", round(time.monotonic() - began, 1), "s")
    for key, count in seen.most_common():
        print(count, key)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--show"]:
        show_all(" ".join(sys.argv[2:]))
    else:
        run_as_program(campaign, about=__doc__)
