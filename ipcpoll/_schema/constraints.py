"""Constraints in `Annotated[…]`: which are known, and what holds for a plain value. No I/O.

Known are those of `msgspec.Meta`, of `annotated_types`, and of `pydantic.Field` where it is made of
these. Neither library is imported: their objects are known by the names of their classes and of the
modules that these come from.

What is no constraint is left alone: text, a `Doc`, an object of the program's own.
What is one and not known is a TypeError, because a range that nobody looks at is worse than none.
An object counts as a constraint when

* its class, or a base of it, comes from a library that validates (`VALIDATING`), but for the few
  that only describe (`_DESCRIBES`), or
* pydantic would ask it for a schema (``__get_pydantic_core_schema__``), or
* it has a bound by one of their names (``ge``, ``max_length``, …) that is not None.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

import msgspec

from .._shown import shown_value

NUMBER, LENGTH, PATTERN, ZONE = "number", "length", "pattern", "zone"
"""What a constraint looks at."""

VALIDATING: Final = frozenset(
    {
        "annotated_types",
        "attr",
        "attrs",
        "beartype",
        "cattrs",
        "marshmallow",
        "msgspec",
        "pandera",
        "pydantic",
        "pydantic_core",
        "typeguard",
        "voluptuous",
    }
)
"""The libraries whose objects in `Annotated[…]` are meant to be enforced."""
_DESCRIBES: Final = frozenset(
    {"DocInfo", "Examples", "SkipJsonSchema", "Strict", "Unit", "WithJsonSchema"}
)
"""What these libraries have beside constraints. Strict is what ipcpoll is anyway."""
_BOUNDS: Final = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern")
_SCHEMA: Final = "__get_pydantic_core_schema__"
_CLASSES: Final = {
    "Gt": "gt",
    "Ge": "ge",
    "Lt": "lt",
    "Le": "le",
    "MultipleOf": "multiple_of",
    "MinLen": "min_length",
    "MaxLen": "max_length",
}
"""The classes of annotated_types that hold one bound, each in an attribute of this name."""
_UNKNOWN_OF_FIELD: Final = (
    "alias",
    "validation_alias",
    "serialization_alias",
    "discriminator",
    "exclude",
)
_UNITS: Final[dict[type, str]] = {str: "character", bytes: "byte", list: "item", dict: "entry"}
_OFFSET: Final = re.compile(r"(Z|[+-]\d\d:?\d\d)$", re.IGNORECASE)


class Constraint(NamedTuple):
    """One bound."""

    subject: str
    """NUMBER, LENGTH, PATTERN or ZONE."""
    name: str
    """As the author wrote it: ``ge``, ``Ge``."""
    holds: Callable[[Any], bool]
    """Of what it looks at: the number, the length, the text."""
    words: str
    """What must be so, behind "must"."""
    keyword: str
    """As `msgspec.Meta` names it: ``ge``; of a zone ``tz``, of finite numbers ``finite``."""
    bound: Any
    """What the keyword is given there: a number, a pattern, True."""

    def fault(self, plain: Any) -> str | None:
        """Return what is wrong with a plain value; None: nothing, or it is not about such."""
        kind = type(plain)
        if self.subject == LENGTH:
            if kind not in _UNITS or self.holds(len(plain)):
                return None
            return f"must have {self.words} {_unit(kind, self.words)}, not {len(plain)}"
        if kind not in ((int, float) if self.subject == NUMBER else (str,)) or self.holds(plain):
            return None
        return f"must {self.words}, not {shown_value(plain)}"


def constraints_of(metadata: Iterable[Any]) -> Iterator[Constraint]:
    """Give the constraints among the metadata of one `Annotated[…]`.

    Raises TypeError that says which one is not known.
    """
    for item in metadata:
        if type(item) is msgspec.Meta:
            yield from _bounds({name: getattr(item, name) for name in _BOUNDS}, item.tz)
        elif getattr(item, "__is_annotated_types_grouped_metadata__", False):
            yield from constraints_of(item)
        elif isinstance(item, type):
            if _is_meant(item, item):
                raise TypeError(f"the constraint {repr(item)[:80]} is not known")
        elif _is_constraint(item):
            yield from _foreign(item)


def is_validating(cls: type) -> bool:
    """Return whether another library validates the objects of this class as they are made."""
    return any(
        hasattr(cls, name)
        for name in ("__pydantic_validator__", "__pydantic_fields__", "__get_validators__")
    )


def is_foreign(thing: object) -> bool:
    """Return whether it belongs to a library that validates: such a default means something."""
    return bool(packages_of(type(thing)) & VALIDATING) and thing is not msgspec.UNSET


def packages_of(cls: type) -> set[str]:
    """Return the packages that a class and its bases come from."""
    return {base.__module__.partition(".")[0] for base in cls.__mro__}


def _is_meant(item: Any, kind: type) -> bool:
    """Return whether a class says that such an object is a constraint; or that class itself."""
    if packages_of(kind) & VALIDATING:
        return not any(base.__name__ in _DESCRIBES for base in kind.__mro__)
    return hasattr(item, _SCHEMA)


def _is_constraint(item: Any) -> bool:
    kind = type(item)
    if packages_of(kind) & VALIDATING or hasattr(item, _SCHEMA):
        return _is_meant(item, kind)
    bounds = (getattr(item, name, None) for name in _BOUNDS)
    return any(bound is not None and not callable(bound) for bound in bounds)


def _foreign(item: Any) -> Iterator[Constraint]:
    names = [base.__name__ for base in type(item).__mro__]
    name = names[0]
    if name in _CLASSES:
        yield from _bounds({_CLASSES[name]: getattr(item, _CLASSES[name])}, None, name)
    elif name == "Timezone" and (item.tz is None or item.tz is ...):
        yield from _bounds({}, item.tz is not None)
    elif name == "AllowInfNan":
        yield from _finite(item.allow_inf_nan)
    elif "FieldInfo" in names:  # what pydantic.Field makes
        for key in _UNKNOWN_OF_FIELD:
            if getattr(item, key, None) is not None:
                raise TypeError(f"`{key}` of pydantic's Field is not known")
        yield from constraints_of(item.metadata)
    elif name.strip("_") == "PydanticGeneralMetadata":
        for key, value in vars(item).items():
            if key in _BOUNDS:
                yield from _bounds({key: value}, None)
            elif key == "allow_inf_nan":  # here before pydantic 2.10
                yield from _finite(value)
            elif value is not None and value is not False and key != "strict":
                raise TypeError(f"`{key}` of pydantic's Field is not known")
    else:
        raise TypeError(f"the constraint {repr(item)[:80]} is not known")


def _finite(allow_inf_nan: bool | None) -> Iterator[Constraint]:
    if allow_inf_nan is False:
        yield Constraint(NUMBER, "allow_inf_nan", math.isfinite, "be finite", "finite", True)


def _bounds(
    bounds: dict[str, Any], zone: bool | None, called: str | None = None
) -> Iterator[Constraint]:
    """Give what the bounds that are not None say."""
    for name, bound in bounds.items():
        if bound is None:
            continue
        name_shown = called or name
        if name == "pattern":
            pattern = re.compile(bound)
            words = f"match the pattern {pattern.pattern!r}"
            yield Constraint(PATTERN, name_shown, _matches(pattern), words, name, pattern.pattern)
        elif name in ("min_length", "max_length"):
            if type(bound) is not int or bound < 0:
                raise TypeError(f"{name_shown} is a number of items, not {bound!r}")
            words = ("at least" if name == "min_length" else "at most") + f" {bound}"
            yield Constraint(LENGTH, name_shown, _COMPARE[name](bound), words, name, bound)
        elif type(bound) not in (int, float) or (name == "multiple_of" and not bound > 0):
            raise TypeError(f"the bound {name_shown}={bound!r} is not known; bounds are numbers")
        else:
            words = _WORDS[name] + repr(bound)
            yield Constraint(NUMBER, name_shown, _COMPARE[name](bound), words, name, bound)
    if zone is not None:
        words = "say its offset from UTC" if zone else "say no offset from UTC"
        holds = _says_offset if zone else _says_no_offset
        yield Constraint(ZONE, "tz", holds, words, "tz", zone)


_WORDS: Final = {
    "gt": "be more than ",
    "ge": "be at least ",
    "lt": "be less than ",
    "le": "be at most ",
    "multiple_of": "be a multiple of ",
}
# Written so that a NaN, which compares with nothing, is in no range.
_COMPARE: Final[dict[str, Callable[[Any], Callable[[Any], bool]]]] = {
    "gt": lambda bound: lambda value: bool(value > bound),
    "ge": lambda bound: lambda value: bool(value >= bound),
    "lt": lambda bound: lambda value: bool(value < bound),
    "le": lambda bound: lambda value: bool(value <= bound),
    "multiple_of": lambda bound: lambda value: math.isfinite(value) and value % bound == 0,
    "min_length": lambda bound: lambda length: bool(length >= bound),
    "max_length": lambda bound: lambda length: bool(length <= bound),
}


def _matches(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    return lambda text: pattern.search(text) is not None


def _says_offset(text: str) -> bool:
    return _OFFSET.search(text) is not None


def _says_no_offset(text: str) -> bool:
    return _OFFSET.search(text) is None


def _unit(kind: type, words: str) -> str:
    unit = _UNITS[kind]
    if words.endswith(" 1"):
        return unit
    return "entries" if unit == "entry" else unit + "s"
