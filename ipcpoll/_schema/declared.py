"""What a command class declares of itself with `ipcpoll.about`. No I/O.

What is promised: it holds for the class that it stands above, and not for those derived from it. An
error that the class declares reaches whoever calls with that class as the exception that it is;
anything that can't be made so is the plain `CommandError`, never a failure of its own.

The decorator is in `describe`. Here is what a client needs of it without loading that room.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple, TypeAlias

from ..errors import CommandError, DeclaredError, remake

Effect: TypeAlias = Literal["reads", "changes", "dangerous"]

_ABOUT: Final = "__ipcpoll_about__"


class About(NamedTuple):
    """What annotations can't say. The defaults hold for a class that says nothing."""

    effect: Effect = "changes"
    errors: Mapping[str, type[DeclaredError]] = {}
    """By code."""
    since: str | None = None
    deprecated: str | None = None
    hidden: bool = False


_NOTHING: Final = About()


def declare(cls: type, about: About) -> None:
    """Note what a class says of itself."""
    setattr(cls, _ABOUT, about)


def declared(cls: type) -> About:
    """Return what a class says of itself, not its bases."""
    about = vars(cls).get(_ABOUT, _NOTHING)
    return about if isinstance(about, About) else _NOTHING


def as_declared(error: CommandError, cls: type | None) -> CommandError:
    """Return an error that was received as the exception that the command `cls` declares for it.

    As it is where it declares none for this code, and where there is no class: a call by name.
    """
    if cls is None or type(error) is not CommandError:  # ipcpoll's own codes have classes
        return error
    kind = declared(cls).errors.get(error.code)
    return error if kind is None else remake(kind, error.code, error.message, error.data)
