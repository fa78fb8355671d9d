"""`about`: what a command class says of itself beside its annotations. No I/O.

What is promised: it returns the class that it was given, with its type, and changes nothing of what
the command does. It holds for that class alone. What is wrong with it is told at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, get_args

from .._schema.declared import About, Effect, declare
from ..errors import DeclaredError

T = TypeVar("T", bound="type[Any]")

_EFFECTS = get_args(Effect)


def about(
    *,
    effect: Effect = "changes",
    errors: Iterable[type[DeclaredError]] = (),
    since: str | None = None,
    deprecated: str | None = None,
    hidden: bool = False,
) -> Callable[[T], T]:
    """Say what the annotations of a command can't. Put it above the class::

        @ipcpoll.about(effect="reads", errors=(QueueFull,), since="1.2")
        @dataclass
        class Size:
            ...

    `effect`: the command only "reads", "changes" something, or is "dangerous" (tools ask before
    they call it). `errors`: those that it refuses with; who calls with this class gets them as they
    are. `since`: the version of the program that had it first. `deprecated`: what to use in its
    place; None: it is not. `hidden`: it can be called, and no tool lists it.

    For this class, not for those derived from it. Raises ValueError for an effect that is none of
    the three, TypeError for all else that is wrong.
    """
    if effect not in _EFFECTS:
        raise ValueError(f"an effect is one of {', '.join(_EFFECTS)}, not {effect!r}")
    for name, words in (("since", since), ("deprecated", deprecated)):
        if words is not None and type(words) is not str:
            raise TypeError(f"`{name}` is text or None, not {words!r}")
    if type(hidden) is not bool:
        raise TypeError(f"`hidden` is True or False, not {hidden!r}")
    said = About(effect, _by_code(errors), since, deprecated, hidden)

    def decorate(cls: T) -> T:
        _refuse_no_class(cls)
        declare(cls, said)
        return cls

    return decorate


def _refuse_no_class(given: object) -> None:
    if not isinstance(given, type):
        raise TypeError(f"`about` says something about a class, not {given!r}")


def _by_code(errors: Iterable[type[DeclaredError]]) -> dict[str, type[DeclaredError]]:
    if isinstance(errors, type):
        raise TypeError(f"`errors` are several classes: write `errors=({errors.__qualname__},)`")
    found: dict[str, type[DeclaredError]] = {}
    given: list[object] = list(errors)
    for error in given:
        if not (isinstance(error, type) and issubclass(error, DeclaredError)) or not hasattr(
            error, "CODE"
        ):
            raise TypeError(
                f"an error is a class derived from DeclaredError with a CODE, not {error!r}"
            )
        other = found.setdefault(error.CODE, error)
        if other is not error:
            raise TypeError(
                f"{other.__qualname__} and {error.__qualname__} have the same code `{error.CODE}`"
            )
    return found
