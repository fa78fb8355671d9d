"""What is marked as a secret, and that no refusal shows it. No I/O.

What is promised: whatever is wrong with a value that is a secret, or that has one among its items,
all that is said of it is that it does not fit. The sentence reaches clients and logs.

The mark is the word ``writeOnly`` in a `msgspec.Meta`, as `ipcpoll.SECRET` has it. A dataclass that
has a secret among its fields is none itself: its other fields are named and shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

import msgspec

from .forms import Form, Limited, Record, Unfit

R = TypeVar("R")


def is_secret(metadata: Iterable[Any]) -> bool:
    """Return whether one of these marks a secret."""
    return any(
        type(meta) is msgspec.Meta and (meta.extra_json_schema or {}).get("writeOnly") is True
        for meta in metadata
    )


def concealed(form: Form) -> Form:
    """Return a form that shows no value, if there is a secret in it; else the form."""
    return Concealed(form) if _holds_secret(form) else form


def _holds_secret(form: Form) -> bool:
    if isinstance(form, Concealed):
        return True
    return not isinstance(form, Record) and any(map(_holds_secret, form.parts()))


class Concealed(Limited):
    """A form around another, which refuses what that refuses and does not say why."""

    def __init__(self, form: Form) -> None:
        super().__init__(form, [])
        if form.check is None:
            self.check = None

    def plain(self, value: Any) -> Any:
        return _discreetly(self.form.plain, value)

    def _check(self, plain: Any) -> None:
        _discreetly(super()._check, plain)

    def explain(self, plain: Any, *, lenient: bool) -> None:
        _discreetly(partial(self.form.explain, lenient=lenient), plain)


def _discreetly(function: Callable[[Any], R], value: Any) -> R:
    """Call a function with a secret; where that is refused, raise Unfit that does not say why."""
    try:
        return function(value)
    except Unfit as unfit:
        kind = unfit.kind
    # Out here, or the refusal that shows the value would be its context.
    raise Unfit("does not fit; it is a secret, so no more is said", kind)
