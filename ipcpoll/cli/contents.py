"""What ``@file`` and ``-`` stand for: the one place where values are read from outside.

What is promised: nothing is read unless it was asked for by one of the two, stdin once, and never
more than a message can hold.
"""

from __future__ import annotations

import sys
from typing import BinaryIO, Final

from .kinds import said
from .unfit import Unfit

MOST: Final = 16 * 1024 * 1024
"""Bytes of one content: the largest frame that any program of ipcpoll takes by default."""


class Contents:
    """Reads contents; `stdin` is standard input unless another is given."""

    def __init__(self, stdin: BinaryIO | None = None, *, most: int = MOST) -> None:
        self._stdin = stdin
        self._most = most
        self._was_read = False

    def __call__(self, typed: str) -> bytes:
        """Return the content of ``@file`` or ``-``. Blocks until it has come. Raises Unfit."""
        if typed == "-":
            return self._of_stdin()
        path = typed.removeprefix("@")
        try:
            with open(path, "rb") as file:
                return self._bounded(file, path)
        except OSError as error:
            raise Unfit(f"takes {said(path)}, which can't be read: {error.strerror}") from None

    def _of_stdin(self) -> bytes:
        if self._was_read:
            raise Unfit("takes stdin, which can be read once, and - is here twice")
        self._was_read = True
        stdin = self._stdin or (None if sys.stdin is None else sys.stdin.buffer)
        if stdin is None:
            raise Unfit("takes stdin, which is closed")
        return self._bounded(stdin, "stdin")

    def _bounded(self, file: BinaryIO, name: str) -> bytes:
        content = file.read(self._most + 1)
        if len(content) > self._most:
            raise Unfit(f"takes {said(name)}, which has more than {self._most} bytes")
        return content
