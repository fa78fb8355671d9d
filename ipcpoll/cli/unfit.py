"""A value that does not fit: one exception for all that read values. No I/O."""

from __future__ import annotations


class Unfit(ValueError):
    """A value does not fit its schema. Nothing was sent.

    `words` say what must be so: ``must be at most 50, not 60``; with its place before them they are
    the sentence, and a `hint` may follow. `is_near`: it is of the right kind, and the words say
    more than the kind.
    """

    def __init__(
        self, words: str, place: str = "", *, hint: str = "", is_near: bool = False
    ) -> None:
        super().__init__(f"{place} {words}{hint}".strip())
        self.words = words
        self.place = place
        self.hint = hint
        self.is_near = is_near

    def at(self, place: str) -> Unfit:
        """Return the same with its place in something larger."""
        return Unfit(self.words, f"{place}{self.place}", hint=self.hint, is_near=self.is_near)
