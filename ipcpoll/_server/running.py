"""Whose code runs while a server polls: the program's, in a command, or the library's own.

A signal handler runs between any two steps, and may call `poll` or `close`. Inside a command that
is like any other call of the command. In the midst of a step of the library's own it would find
everything half done: there `poll` is refused, and `close` waits for the end of the poll.
"""

from __future__ import annotations


class Running:
    """What runs just now. Read and set by the thread that polls."""

    __slots__ = ("close_wanted", "depth", "own", "stop")

    def __init__(self) -> None:
        self.depth = 0
        """Rounds on the stack."""
        self.own = False
        """Whether the innermost of them takes a step of its own; else a command has called."""
        self.close_wanted = False
        """The server was closed in such a step, and is to be closed as that poll ends."""
        self.stop = False
        """It was closed, or is to be: no more turns."""
