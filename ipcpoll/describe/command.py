"""`Describe`: the built-in command that describes a program, as clients call it. No I/O."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from .._schema.answers import Turn
from .about import about

if TYPE_CHECKING:
    Description = dict[str, Any]
else:
    Description = dict


class Source(Protocol):
    """What a program says of itself, made step by step when it is asked for."""

    def advance(self) -> bool:
        """Take one step; return whether there is more to do."""
        ...

    def answer(self, known: str | None) -> Description:
        """Return the description; the short one where its fingerprint is the known one."""
        ...


@about(effect="reads")
@dataclass(frozen=True)
class Describe:
    """Describe the program: its commands, its variables, and their types.

    ``client.call(Describe())`` answers plain data; docs/describe.md says what is in it. `known` is
    the fingerprint of the description that the caller has already: where it is still the right one,
    the answer is only `ipcpoll`, `program` and `fingerprint`.

    Every server answers it, under the name ``ipcpoll.describe``. It can't be given to one.
    """

    known: str | None = None

    source: ClassVar[Source]
    """Set in the class that each server makes of this one."""

    def process(self, ctx: object) -> Generator[Turn, None, Description]:
        """Make the description, if there is none yet, one step in each turn."""
        while self.source.advance():
            yield Turn()
        return self.source.answer(self.known)


Describe.__name__ = "ipcpoll.describe"
