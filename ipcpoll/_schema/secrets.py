"""What is marked as a secret, and that no refusal shows it. No I/O.

What is promised: whatever is wrong with a value that is a secret, or that has one among its items,
all that is said of it is that it does not fit. The sentence reaches clients and logs.

The mark is the word ``writeOnly`` in a `msgspec.Meta`, as `ipcpoll.SECRET` has it. A dataclass that
has a secret among its fields is none itself: its other fields are named and shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from .forms import Form, Limited, Record, Unfit


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
        try:
            return self.form.plain(value)
        except Unfit as unfit:
            kind = unfit.kind
        raise _refusal(kind)

    def _check(self, plain: Any) -> None:
        try:
            super()._check(plain)
        except Unfit as unfit:
            kind = unfit.kind
        else:
            return
        raise _refusal(kind)

    def explain(self, plain: Any, *, lenient: bool) -> None:
        try:
            self.form.explain(plain, lenient=lenient)
        except Unfit as unfit:
            kind = unfit.kind
        else:
            return
        raise _refusal(kind)


def _refusal(kind: type[Exception]) -> Unfit:
    return Unfit("does not fit; it is a secret, so no more is said", kind)
