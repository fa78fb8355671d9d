"""The life of the socket: processes that start, stop and are killed on one path, and other users.

    python tests/campaign/races.py --seconds 600

tests/support/race.py runs with 2 to 16 processes, on tmpfs and on disk, as this user and, when
this is root, as the user nobody; in turn until the time is over, or until 100,000 servers were
started and 10,000 processes killed. Then the tests of tests/address run once: wrong owners and
modes of directories, another user who wants to connect, to squat the path, or to be taken for the
server. Those need root; without it the figures say that they were skipped.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from part import Figures, run_as_program

TESTS = Path(__file__).resolve().parent.parent
NOBODY = 65534
STARTS = 100_000
KILLS = 10_000
LAP = 20.0
"""Seconds of one race."""


def campaign(seconds: float) -> Figures:
    """Let them race for most of the time; return what was counted."""
    until = time.monotonic() + 0.85 * seconds
    users = [os.geteuid()] + ([NOBODY] if os.geteuid() == 0 else [])
    places = [place for place in ("/dev/shm", "/var/tmp") if os.access(place, os.W_OK)]
    kinds = [file_system(place) for place in places]
    # 7 is prime to the other numbers of kinds, so that each meets each. Six processes start most
    # often.
    laps = zip(
        itertools.cycle((6, 2, 6, 16, 6, 4, 9)),
        itertools.cycle(zip(places, kinds, strict=True)),
        itertools.cycle(sorted(users * len(places))),
        strict=False,
    )
    counts: Counter[str] = Counter()
    raced = 0.0
    seen: set[str] = set()
    for processes, (place, kind), user in laps:
        left = until - time.monotonic()
        if left < 1 and seen:
            break
        if counts["starts"] >= STARTS and kills(counts) >= KILLS:
            break
        began = time.monotonic()
        counts.update(race(place, user, processes, max(1.0, min(LAP, left / 2))))
        raced += time.monotonic() - began
        seen |= {f"{kind} as user {user}", f"{processes} processes"}
    figures: Figures = {
        "starts": counts["starts"],
        "starts per second": round(counts["starts"] / raced, 1),
        "SIGKILLs": kills(counts),
        "rebinds": counts["rebound"],
        "answers": counts["answers"],
        "files put in the way": counts["foreign_files"],
        "two owners": 0,
        "raced with": ", ".join(sorted(seen)),
    }
    return figures | other_users(max(60.0, until + 0.15 * seconds - time.monotonic()))


def kills(counts: Counter[str]) -> int:
    """Return how many processes were killed, by themselves or by the parent."""
    return counts["killed"] + counts["killed_itself"]


def file_system(place: str) -> str:
    """Return the name of the file system of a directory."""
    words = ["stat", "-f", "-c", "%T", place]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def race(place: str, user: int, processes: int, seconds: float) -> dict[str, int]:
    """Run one race in a process of its own; raise if there was a violation."""
    with tempfile.TemporaryDirectory(dir=place, prefix="ipcpoll-") as directory:
        os.chmod(directory, 0o755)
        words = [sys.executable, "-W", "error", str(TESTS / "support" / "race.py")]
        words += ["--seconds", str(seconds), "--processes", str(processes)]
        words += ["--directory", f"{directory}/race", "--user", str(user)]
        ended = subprocess.run(
            words, capture_output=True, text=True, timeout=seconds + 60, check=False
        )
    assert ended.stdout, ended.stderr
    counts: dict[str, int] = json.loads(ended.stdout)
    violations = counts.pop("violations")
    assert not violations, violations
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    return counts


def other_users(seconds: float) -> Figures:
    """Run the tests of the socket's life, but those of the race."""
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    words += ["address", "-k", "not many_processes_race"]
    ended = subprocess.run(
        words, cwd=TESTS, capture_output=True, text=True, timeout=seconds + 600, check=False
    )
    assert ended.returncode == 0, ended.stdout[-5000:]
    told = {
        word: int(number) for number, word in re.findall(r"(\d+) (passed|skipped)", ended.stdout)
    }
    return {
        "tests of the socket's life": told["passed"],
        "of these skipped": told.get("skipped", 0),
        "ran as root": "yes" if os.geteuid() == 0 else "no: nothing of other users was tried",
    }


if __name__ == "__main__":
    run_as_program(campaign, about=__doc__)
