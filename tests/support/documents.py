"""What the tests of the documents share: the fenced blocks of a Markdown file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})[ \t]*(.*?)[ \t]*$")


class Block(NamedTuple):
    """One fenced block."""

    document: str
    line: int
    """The number of its first line."""
    language: str
    text: str

    @property
    def title(self) -> str:
        """What its first line says as a comment; a Python block says its file name."""
        first = self.text.partition("\n")[0]
        return first.removeprefix("#").strip() if first.startswith("#") else ""

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def documents() -> list[str]:
    """Return README.md and what lies in docs/, relative to the root."""
    return ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


def read(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str) -> list[Block]:
    """Return the fenced blocks of a document, in order."""
    return list(find_blocks(document, read(document)))


def find_blocks(document: str, text: str) -> list[Block]:
    """Return the fenced blocks of a text; one without an end is an error."""
    found: list[Block] = []
    lines: list[str] = []
    fence = language = ""
    begin = 0
    for number, line in enumerate(text.splitlines(), start=1):
        match = _FENCE.match(line)
        if not fence:
            if match:
                fence, language = match[1], match[2]
                begin, lines = number + 1, []
        elif match and match[1].startswith(fence) and not match[2]:
            found.append(Block(document, begin, language, "".join(f"{one}\n" for one in lines)))
            fence = ""
        else:
            lines.append(line)
    assert not fence, f"{document}:{begin}: this block has no end"
    return found
