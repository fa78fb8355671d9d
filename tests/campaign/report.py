"""The report of a campaign: what was run on what, the aims, and all figures, as Markdown.

In docs/reliability.md it is between two markers; the rest of that page is written by hand and
stays as it is.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from part import Figures

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "reliability.md"
BEGIN = "<!-- the campaign's report begins: make campaign writes it -->"
END = "<!-- the campaign's report ends -->"


class Aim(NamedTuple):
    """What a figure of a part should be: at least so much, at most so much, or just this."""

    part: str
    figure: str
    wanted: int | float | str
    at_most: bool = False

    def reached(self, figure: int | float | str) -> bool:
        """Return whether a figure is as it should be."""
        if isinstance(self.wanted, str) or isinstance(figure, str):
            return figure == self.wanted
        return figure <= self.wanted if self.at_most else figure >= self.wanted


IDLE_POLL = "a poll with nothing to do, beside the idle clients, times as much"
AIMS = (
    Aim("syscall_faults", "complete", "yes"),
    Aim("interruptions", "complete", "yes"),
    Aim("fuzz_parser", "parser executions", 10**7),
    Aim("fuzz_parser", "full-stack executions", 10**6),
    Aim("races", "starts", 100_000),
    Aim("races", "SIGKILLs", 10_000),
    Aim("races", "two owners", 0, at_most=True),
    Aim("soak", "good messages", 10**7),
    Aim("soak", "faults injected", 100_000),
    Aim("soak", "lost", 0, at_most=True),
    Aim("soak", "doubled", 0, at_most=True),
    Aim("load", "clients connected at once", 10_000),
    Aim("load", IDLE_POLL, 1.2, at_most=True),
    Aim("load", "memory per idle connection, KiB", 2.5, at_most=True),
    Aim("load", "connections in sequence", 10**6),
    Aim("mutations", "killed (%)", 90),
)
"""What a whole campaign is to show. Memory and descriptors have no figure here: the soak fails."""


class Outcome(NamedTuple):
    """What became of one part."""

    name: str
    about: str
    passed: bool
    figures: Figures


def describe() -> dict[str, str]:
    """Return when and with what a campaign runs."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": _commit(),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "kernel": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "cores": str(len(os.sched_getaffinity(0))),
        "cbor2": version("cbor2"),
        "msgspec": version("msgspec"),
    }


def _commit() -> str:
    """Return what is checked out, and whether files differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    commit = git("log", "-1", "--format=%h of %cd", "--date=short")
    if not commit:
        return "no repository"
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":!docs")
    return f"{commit}, with changes" if changed else commit


def as_markdown(about: Mapping[str, str], outcomes: Sequence[Outcome]) -> str:
    """Return the report."""
    lines = _table(("what", "with"), about.items())
    lines += _aims(outcomes)
    for name, what, passed, figures in outcomes:
        failed = "" if passed else " — FAILED"
        lines += ["", f"### {name}{failed}", "", what, ""]
        lines += _table(("what", "figure"), ((key, _shown(it)) for key, it in figures.items()))
    return "\n".join(lines) + "\n"


def _aims(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the table of the aims, of the parts that were run."""
    found = {outcome.name: outcome.figures for outcome in outcomes}
    rows = []
    for aim in AIMS:
        if aim.part in found:
            figure = found[aim.part].get(aim.figure, "none")
            sign = "" if isinstance(aim.wanted, str) else "≤ " if aim.at_most else "≥ "
            reached = "yes" if aim.reached(figure) else "**no**"
            rows.append(
                (f"{aim.part}: {aim.figure}", sign + _shown(aim.wanted), _shown(figure), reached)
            )
    return ["", "### Aims", "", *_table(("what", "aim", "figure", "reached"), rows)] if rows else []


def _table(head: tuple[str, ...], rows: Iterable[Sequence[object]]) -> list[str]:
    cells = [head, *(tuple(map(str, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        first, *others = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        aligned = [cell.strip().rjust(len(cell)) for cell in others]
        lines.append(f"| {' | '.join([first, *aligned])} |")
    rules = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines.insert(1, f"| {' | '.join(rules)} |")
    return lines


def _shown(figure: float | str) -> str:
    if isinstance(figure, int):
        return f"{figure:,}"
    if isinstance(figure, float):
        return f"{figure:,.1f}" if abs(figure) >= 100 else f"{figure:.3g}"
    return figure.replace("|", "\\|").replace("\n", " ")


def put(document: str, text: str) -> str:
    """Return a document with the report between its markers."""
    before, _, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert end, f"the document has no place for the report: {BEGIN} … {END}"
    return f"{before}{BEGIN}\n\n{text.rstrip()}\n\n{END}{after}"


def write(text: str) -> None:
    """Write the report into the document."""
    DOCUMENT.write_text(put(DOCUMENT.read_text(), text))
