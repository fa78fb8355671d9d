"""What a command is: any dataclass with a `process` method. Nothing to inherit."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

Ctx_contra = TypeVar("Ctx_contra", contravariant=True)
Answer_co = TypeVar("Answer_co", covariant=True)


class Command(Protocol, Generic[Ctx_contra, Answer_co]):
    """A dataclass that knows how to process itself.

    The annotations of its fields and of `process`'s return *are* the schema; a missing one is a
    TypeError when the server is built. The annotation of `ctx` is not resolved, so its type may be
    imported under ``TYPE_CHECKING``.
    """

    def process(self, ctx: Ctx_contra, /) -> Answer_co:
        """Do it, and return the answer.

        Runs on the thread that polls, inside `Server.poll`; while it runs the program's loop
        stands still. It may raise `CommandError` to refuse, close the server, or open a nested
        main loop, in which the other connections are served.
        """
        ...
