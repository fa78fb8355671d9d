"""`Progress`: the piece that says how far a command has come. No I/O."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a command has come: yield it as a piece, and tools show a bar.

    `done` of `total`, in any unit, the same for both; `total` None: it is not known. `text` is for
    people, and may be empty. Nothing checks that `done` grows, or ends at `total`.
    """

    done: float
    total: float | None = None
    text: str = ""
