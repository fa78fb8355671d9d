"""How a verb shows what it has found: JSON, a table on a terminal, plain text with tabs in a pipe.

What is promised:

* Nothing that a program has said reaches the output unescaped (see `text`), or is read as markup.
* In a pipe there is never a colour, and one line is one thing: a tab between two columns, none in
  one. On a terminal NO_COLOR is honoured.
* rich is imported for a table on a terminal, and for nothing else.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from .text import MOST, json_text, shown

GOOD: Final = "green"
BAD: Final = "red"


def is_terminal() -> bool:
    """Return whether the output goes to a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def prepare() -> None:
    """Import what a table on this output needs, while it can still be read; see `users`."""
    if is_terminal():
        importlib.import_module("rich.console")
        importlib.import_module("rich.table")


def document(value: Any) -> None:
    """Print one JSON document: indented for people, else on one line."""
    print(json_text(value, indent=2 if is_terminal() else None))


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], colours: Sequence[str] = ()
) -> None:
    """Print rows: as a table with heads on a terminal, with tabs and without heads in a pipe.

    `colours` has one for each row, or "", for its second column: the one that says how it is.
    """
    if is_terminal():
        _draw(columns, rows, colours)
        return
    for row in rows:
        print("\t".join(shown(cell) or "-" for cell in row))


def moment(unix_time: float | None) -> str:
    """Return a moment in local time: short on a terminal, with its offset from UTC in a pipe."""
    if unix_time is None:
        return ""
    form = "%Y-%m-%d %H:%M:%S" if is_terminal() else "%Y-%m-%dT%H:%M:%S%z"
    return time.strftime(form, time.localtime(unix_time))


def _draw(columns: Sequence[str], rows: Sequence[Sequence[str]], colours: Sequence[str]) -> None:
    from rich.console import Console  # noqa: PLC0415  # costs 20 ms
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for index, row in enumerate(rows):
        cells = [Text(shown(cell, MOST) or "-") for cell in row]
        if colours and colours[index]:
            cells[1].stylize(colours[index])
        drawn.add_row(*cells)
    Console(markup=False, highlight=False, emoji=False).print(drawn)
