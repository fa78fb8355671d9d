"""Values that nothing annotates: the fields of a request by name, the data of an error. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._shown import shown_value
from .._wire import codec
from .forms import BARE, Unfit


def plain_value(value: object, what: str) -> Any:
    """Return a value that nothing annotates, if it arrives as it is.

    Raises TypeError or ValueError that begins with `what` and the place.
    """
    try:
        return BARE.plain(value)
    except Unfit as unfit:
        error = unfit.kind(unfit.at(what))
    except RecursionError:
        error = ValueError(f"{what} is nested too deeply, or holds itself")
    raise error


def encode_request(name: Any, fields: Any) -> bytes:
    """Return what follows the id in a call by name, of plain values. `fields` None: there are none.

    Raises TypeError or ValueError with the place.
    """
    if not isinstance(name, str):
        raise TypeError(f"a request names its command in text, not by {shown_value(name)}")
    if fields is None:
        fields = {}
    if not isinstance(fields, Mapping):
        raise TypeError(f"{name}: the fields of a request are a dict, not {shown_value(fields)}")
    items = [codec.encode(name), codec.map_head(len(fields))]
    for key, value in fields.items():
        if type(key) is not str:
            raise TypeError(f"{name}: the name of a field is text, not {shown_value(key)}")
        items += _encoded(key, name), _encoded(plain_value(value, f"{name}.{key}"), f"{name}.{key}")
    return b"".join(items)


def _encoded(plain: Any, place: str) -> bytes:
    try:
        return codec.encode(plain)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
