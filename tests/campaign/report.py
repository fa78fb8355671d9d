"""The report of a campaign: what was run on what, and its figures, as Markdown.

In docs/reliability.md it stands between two markers; the rest of that page is written by hand and
stays as it is.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from part import Figures

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "reliability.md"
BEGIN = "<!-- the campaign's report begins: make campaign writes it -->"
END = "<!-- the campaign's report ends -->"


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
    for name, what, passed, figures in outcomes:
        failed = "" if passed else " — FAILED"
        lines += ["", f"### {name}{failed}", "", what, ""]
        lines += _table(("what", "figure"), ((key, _shown(it)) for key, it in figures.items()))
    return "\n".join(lines) + "\n"


def _table(head: tuple[str, str], rows: object) -> list[str]:
    cells = [head, *((str(a), str(b)) for a, b in rows)]  # type: ignore[attr-defined]
    first, second = (max(len(row[i]) for row in cells) for i in range(2))
    lines = [f"| {a:{first}} | {b:>{second}} |" for a, b in cells]
    lines.insert(1, f"| {'-' * first} | {'-' * (second - 1)}: |")
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
