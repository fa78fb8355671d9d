"""The commands that every server answers, made for one server. No I/O.

A server asks for them by `for_server`, when somebody calls the first. What is promised: the classes
are this server's own, so what they keep goes with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .._schema.commands import CommandType
from .._wire import codec
from .command import Describe

if TYPE_CHECKING:
    from .description import Description


class _Encoded(CommandType):
    """A command whose `process` returns its answer encoded already."""

    __slots__ = ()

    def __init__(self, cls: type) -> None:
        super().__init__(cls)
        self.encode_answer = _as_it_is


def _as_it_is(value: Any) -> codec.Item:
    item: bytes = value
    return item


class _Source:
    """The description of a server's program. To load what makes it is a step of its own."""

    def __init__(self, commands: Iterable[CommandType], program: Mapping[str, Any]) -> None:
        self._commands = commands
        self._program = program
        self._description: Description | None = None

    def advance(self) -> bool:
        """Take one step; return whether there is more to do."""
        if self._description is None:
            from .description import Description  # noqa: PLC0415

            self._description = Description(self._commands, self._program)
            return True
        return self._description.advance()

    def answer(self, known: str | None) -> bytes:
        """Return the description as one CBOR item; the short one for the known fingerprint."""
        assert self._description is not None
        return self._description.answer(known)


def for_server(
    commands: Iterable[CommandType], program: Mapping[str, Any]
) -> dict[str, CommandType]:
    """Return the built-in commands of a server, by name.

    `commands` are the program's own, `program` what is said of its process.
    """
    source = _Source(commands, program)
    made = [_Encoded(_of_this_server(Describe, source=source))]
    return {command.name: command for command in made}


def _of_this_server(cls: type, **attributes: object) -> type:
    return type(cls.__name__, (cls,), {"__module__": cls.__module__, **attributes})
