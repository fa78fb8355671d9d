"""Values as they are typed, read by their schema: ``a=2 level=debug timeout=1.5s tags=a,b``.

What is promised:

* What is read fits the schema, or `Unfit` is raised, before anything is sent, in the schema's
  words. All faults of one command line are told together.
* `Reader.written` gives the word that is read back as the same value.
* A secret is in no refusal.
* No I/O but for ``@file`` and ``-``, which are read by whoever made the reader.

How a text is read:

* ``null`` first, where it is allowed; any text last; between them what else is allowed, in order.
* Enumerations without case, where one fits. Booleans: yes, no, on, off, true, false. Numbers also
  as ``1e3`` and ``0x10``. Durations with units (``1.5s``, ``2h30m``) where the format or the unit
  is one. Bytes as base64. Lists with commas, where no item is a list or an object; those, and
  objects, as JSON.
* ``name:=JSON`` is JSON and nothing else, in the form in which values are shown as JSON.
* ``@file`` and ``-`` (stdin) stand for the content, without one newline at its end; of bytes for
  all of it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple

from . import durations
from .schemas import (
    MOST_INT,
    NOT_FINITE,
    Schema,
    Schemas,
    choices_of,
    is_bytes,
    is_text,
    kind_words,
    listed,
    named,
    nearest,
    said,
    unknown,
    word,
)
from .text import json_text
from .unfit import Unfit

BOOLEANS: Final = {
    **dict.fromkeys(("yes", "on", "true"), True),
    **dict.fromkeys(("no", "off", "false"), False),
}
TOGGLE: Final = "toggle"
NULL: Final = "null"
_ALSO_NULL: Final = "none"
"""Where nothing else is called so."""

_WHOLE: Final = re.compile(r"[+-]?(?:\d+|0x[0-9a-f]+|0o[0-7]+|0b[01]+)", re.ASCII | re.IGNORECASE)
_NUMBER: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d{1,5})?", re.ASCII | re.IGNORECASE)
_ASSIGNMENT: Final = re.compile(r"([^=]*?)(:=|\+=|-=|=)(.*)", re.DOTALL)
_MOST_DIGITS: Final = 400
_WITHOUT_BOUNDS: Final = (
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
)
_IS_SECRET: Final = "does not fit (it is a secret: no more is said)"


class Assignment(NamedTuple):
    """One word, ``name=text``."""

    name: str
    sign: str
    """``=``, ``:=``, ``+=``, ``-=``."""
    text: str


class Change(NamedTuple):
    """What a word wants of a variable."""

    name: str
    schema: Any
    sign: str
    """``=``: `value` is the new one. ``+=``, ``-=``: it is added, subtracted. TOGGLE: turned."""
    value: Any

    @property
    def reads_first(self) -> bool:
        """Whether the new value depends on the one that is there; see `Reader.changed`."""
        return self.sign != "="


Content = Callable[[str], bytes]
"""Reads ``@file`` and ``-``. Raises Unfit, OSError."""


def split(typed: str) -> Assignment | None:
    """Return the parts of a word; None: it has no ``=``."""
    match = _ASSIGNMENT.fullmatch(typed)
    return None if match is None else Assignment(*match.groups())


class Reader:
    """Reads values by the schemas of one description; `definitions` are its ``$defs``."""

    def __init__(
        self, definitions: Mapping[str, Any] | None = None, *, content: Content | None = None
    ) -> None:
        self.schemas = Schemas(definitions)
        self._content = content

    # -----------------------------------------------------------------------------------------
    # Whole command lines

    def fields(
        self, typed: Iterable[str], schema: Any, owner: str = "the command"
    ) -> dict[str, Any]:
        """Return the fields of a command, `owner`, of the words that were typed behind its name.

        `schema` is that of an object. Raises Unfit, with a sentence for each fault.
        """
        resolved = self.schemas.resolve(schema)
        known = self.schemas.properties(resolved)
        found: dict[str, Any] = {}
        faults: list[Unfit] = []
        for each in typed:
            try:
                assignment = self._assignment(each, known, ("field", owner), found)
                found[assignment.name] = None
                found[assignment.name] = self._field(assignment, known[assignment.name])
            except Unfit as unfit:
                faults.append(unfit)
        missing = [name for name in listed(resolved.get("required")) if name not in found]
        for name in missing:
            faults.append(Unfit(f"is missing: {self.schemas.words(known.get(name))}", name))
        _raise(faults)
        return found

    def changes(
        self, typed: Iterable[str], variables: Mapping[str, Any], owner: str = "the program"
    ) -> list[Change]:
        """Return what the words want of `variables`, which are schemas by name. Raises Unfit."""
        found: dict[str, Change] = {}
        faults: list[Unfit] = []
        for each in typed:
            try:
                assignment = self._assignment(each, variables, ("variable", owner), found)
                schema = variables[assignment.name]
                found[assignment.name] = self._change(assignment, schema)
            except Unfit as unfit:
                faults.append(unfit)
        _raise(faults)
        return list(found.values())

    def _assignment(
        self, typed: str, known: Mapping[str, Any], of: tuple[str, str], found: Mapping[str, Any]
    ) -> Assignment:
        what, owner = of
        assignment = split(typed)
        if assignment is None:
            names = f"; the {what}s are {named(list(known))}" if known else ""
            raise Unfit(f"{said(typed)} is no {what}: write {what}=value{names}")
        if assignment.name not in known:
            raise unknown(assignment.name, list(known), what, owner)
        if assignment.name in found:
            raise Unfit("is given twice", assignment.name)
        return assignment

    def _field(self, assignment: Assignment, schema: Any) -> Any:
        name, sign, text = assignment
        if sign in ("+=", "-="):
            raise Unfit(f"{sign} is for variables, which have a value already", name)
        return self._assigned(name, sign, text, schema)

    def _change(self, assignment: Assignment, schema: Any) -> Change:
        name, sign, text = assignment
        if sign in ("+=", "-="):
            return Change(name, schema, sign, self._amount(assignment, schema))
        if sign == "=" and text.casefold() == TOGGLE and self._can_toggle(schema):
            return Change(name, schema, TOGGLE, None)
        return Change(name, schema, "=", self._assigned(name, sign, text, schema))

    def _assigned(self, name: str, sign: str, text: str, schema: Any) -> Any:
        content = self._content_of(name, text)
        try:
            if content is not None:
                return self._of_content(content, sign, schema)
            return self.json(text, schema) if sign == ":=" else self.value(text, schema)
        except Unfit as unfit:
            raise self._silent(unfit, schema).at(name) from None

    def _content_of(self, name: str, text: str) -> bytes | None:
        if self._content is None or not (text == "-" or text.startswith("@")):
            return None
        try:
            return self._content(text)
        except Unfit as unfit:
            raise unfit.at(name) from None

    def _silent(self, unfit: Unfit, schema: Any) -> Unfit:
        return Unfit(_IS_SECRET) if self.schemas.holds_secret(schema) else unfit

    # -----------------------------------------------------------------------------------------
    # One value

    def value(self, text: str, schema: Any) -> Any:
        """Return the value that a text stands for. Raises Unfit."""
        branches = self.schemas.branches(self.schemas.resolve(schema))
        ordered = sorted(branches, key=_order)
        takes_floats = any(branch.get("type") == "number" for branch in branches)
        faults: list[Unfit] = []
        for branch in ordered:
            try:
                return self._read(text, branch, takes_floats=takes_floats)
            except Unfit as unfit:
                is_null = branch.get("type") == "null" and len(branches) > 1
                if not is_null and not (is_text(branch) and faults):
                    faults.append(unfit)
        if text.casefold() == _ALSO_NULL and any(each.get("type") == "null" for each in branches):
            return None
        raise self.schemas.refusal(text, branches, faults)

    def json(self, text: str, schema: Any) -> Any:
        """Return the value that JSON stands for. Raises Unfit."""
        try:
            value = parsed(text)
        except (ValueError, RecursionError) as error:
            raise Unfit(f"must be JSON after := ({error}), not {said(text)}") from None
        return self.schemas.fit(value, schema)

    def written(self, name: str, value: Any, schema: Any) -> str:
        """Return the word that is read as this plain value: ``name=text``, or ``name:=JSON``."""
        text = _typed(value)
        try:
            is_plain = (
                text is not None
                and text != "-"
                and not text.startswith("@")
                and not (text.casefold() == TOGGLE and self._can_toggle(schema))
                and _same(self.value(text, schema), value)
            )
        except Unfit:
            is_plain = False
        return f"{name}={text}" if is_plain else f"{name}:={json_text(value)}"

    def _of_content(self, content: bytes, sign: str, schema: Any) -> Any:
        branches = self.schemas.branches(self.schemas.resolve(schema))
        texts = [branch for branch in branches if is_text(branch)]
        if sign == "=" and not texts:
            for branch in filter(is_bytes, branches):
                return self.schemas.fit_bytes(content, branch)
        try:
            text = content.decode().removesuffix("\n")
        except UnicodeDecodeError:
            raise Unfit("must be text in UTF-8, and the content is not") from None
        if sign == ":=":
            return self.json(text, schema)
        return self.schemas.fit_text(text, texts[0]) if texts else self.value(text, schema)

    def _read(self, text: str, schema: Schema, *, takes_floats: bool) -> Any:
        choices = choices_of(schema)
        if choices is not None:
            return _chosen(text, choices)
        match schema.get("type"):
            case "null":
                if text.casefold() != NULL:
                    raise Unfit(f"must be null, not {said(text)}")
                return None
            case "boolean":
                return _boolean(text)
            case "integer" if takes_floats and not _WHOLE.fullmatch(text):
                raise Unfit(f"must be an integer, not {said(text)}")
            case "integer" | "number":
                return self.schemas.fit_number(_number(text, schema), schema)
            case "string":
                seconds = durations.read(text) if schema.get("format") == "duration" else None
                return self.schemas.fit_text(
                    text if seconds is None else durations.iso(seconds), schema
                )
            case "array":
                return self._list(text, schema)
            case "object":
                return self._as_json(text, schema)
            case _:
                try:
                    return self.schemas.fit(parsed(text), schema)
                except (ValueError, RecursionError):  # any text last
                    return self.schemas.fit(text, schema)

    def _list(self, text: str, schema: Schema) -> Any:
        parts = text.split(",") if text else []
        items = [self.schemas.item(schema, index) for index in range(max(1, len(parts)))]
        if any(self._is_container(item) for item in items):
            return self._as_json(text, schema)
        self.schemas.fit_list(parts, schema)
        values = []
        for index, part in enumerate(parts):
            try:
                values.append(self.value(part, items[index]))
            except Unfit as unfit:
                raise unfit.at(f"[{index}]") from None
        return values

    def _is_container(self, schema: Any) -> bool:
        branches = self.schemas.branches(self.schemas.resolve(schema))
        return any(branch.get("type") in ("array", "object") for branch in branches)

    def _as_json(self, text: str, schema: Schema) -> Any:
        try:
            value = parsed(text)
        except (ValueError, RecursionError):
            raise Unfit(f"must be {kind_words(schema)} in JSON, not {said(text)}") from None
        return self.schemas.fit(value, schema)

    # -----------------------------------------------------------------------------------------
    # What depends on the value that is there

    def changed(self, change: Change, old: Any) -> Any:
        """Return the new value of a variable that now is `old`. Raises Unfit."""
        try:
            match change.sign:
                case "=":
                    return change.value
                case "toggle":
                    if type(old) is not bool:
                        raise Unfit(f"is {said(old)} now, and only yes and no can be turned")
                    return not old
                case _:
                    return self._added(change, old)
        except Unfit as unfit:
            raise self._silent(unfit, change.schema).at(change.name) from None

    def _added(self, change: Change, old: Any) -> Any:
        amount = change.value if change.sign == "+=" else -change.value
        branch = self._numeric(change.schema)
        assert branch is not None
        if branch.get("type") == "string":
            seconds = _seconds(old)
            if seconds is None:
                raise Unfit(f"is {said(old)} now, which is no duration")
            return self.schemas.fit_text(durations.iso(seconds + amount), branch)
        if type(old) not in (int, float) or not math.isfinite(old):
            raise Unfit(f"is {said(old)} now, to which nothing can be added")
        total = Decimal(repr(old)) + amount  # as it is written: 0.1 + 0.2 is 0.3
        if branch.get("type") == "integer":
            return self.schemas.fit_number(int(total), branch)
        return self.schemas.fit_number(float(total), branch)

    def _amount(self, assignment: Assignment, schema: Any) -> Decimal:
        name, sign, text = assignment
        branch = self._numeric(schema)
        if branch is None:
            raise Unfit(f"takes {self.schemas.words(schema)}; {sign} is for numbers", name)
        try:
            if branch.get("type") == "string":
                seconds = durations.read(text)
                if seconds is None:
                    raise Unfit(f"must be {kind_words(branch)} after {sign}, not {said(text)}")
                return seconds
            free = {key: value for key, value in branch.items() if key not in _WITHOUT_BOUNDS}
            amount = self.schemas.fit_number(_number(text, free), free)
            if not math.isfinite(amount):
                raise Unfit(f"must be a number after {sign}, not {said(text)}")
            return Decimal(repr(amount))
        except Unfit as unfit:
            raise self._silent(unfit, schema).at(name) from None

    def _numeric(self, schema: Any) -> Schema | None:
        for branch in self.schemas.branches(self.schemas.resolve(schema)):
            if choices_of(branch) is None and (
                branch.get("type") in ("integer", "number") or branch.get("format") == "duration"
            ):
                return branch
        return None

    def _can_toggle(self, schema: Any) -> bool:
        branches = self.schemas.branches(self.schemas.resolve(schema))
        return any(branch.get("type") == "boolean" for branch in branches)


# ---------------------------------------------------------------------------------------------
# One text


def parsed(text: str) -> Any:
    """Return what strict JSON says: no NaN, no key twice. Raises ValueError, RecursionError."""
    return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_object)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON, it is written as text")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _order(branch: Schema) -> int:
    """Return when a branch is asked: null, integers, what else is allowed, any text."""
    if is_text(branch):
        return 3
    return {"null": 0, "integer": 1}.get(str(branch.get("type")), 2)


def _boolean(text: str) -> bool:
    value = BOOLEANS.get(text.casefold())
    if value is None:
        raise Unfit(f"must be yes or no, not {said(text)}")
    return value


def _number(text: str, schema: Schema) -> int | float:
    """Return the number that a text stands for, whatever its bounds."""
    is_whole = schema.get("type") == "integer"
    unit = durations.unit(schema.get("x-unit"))
    seconds = None if unit is None else durations.read(text)
    words = "an integer" if is_whole else "a number"
    if seconds is not None and unit is not None:
        number = seconds / unit
        words = f"{words} of {schema['x-unit']}"
    elif len(text) <= _MOST_DIGITS and _WHOLE.fullmatch(text):
        number = Decimal(_whole(text))
    else:
        number = _decimal(text, words, is_whole=is_whole)
    if not is_whole:
        value = float(number)
        if math.isinf(value) and number.is_finite():
            raise Unfit("is too large a number to be sent", is_near=True)
        return value
    if number.is_nan() or abs(number) > 2 * MOST_INT:
        raise Unfit("is too large a number to be sent", is_near=True)
    if number != number.to_integral_value():
        raise Unfit(f"must be {words}, not {said(text)}", is_near=seconds is not None)
    return int(number)


def _whole(text: str) -> int:
    prefix = text.lstrip("+-")[:2].casefold()
    return int(text, 0 if prefix in ("0x", "0o", "0b") else 10)


def _decimal(text: str, words: str, *, is_whole: bool) -> Decimal:
    if not is_whole and text.casefold() in NOT_FINITE:
        return Decimal(text)
    if len(text) <= _MOST_DIGITS and _NUMBER.fullmatch(text):
        try:
            return Decimal(text)
        except InvalidOperation:
            pass
    raise Unfit(f"must be {words}, not {said(text)}")


def _chosen(text: str, choices: Sequence[Any]) -> Any:
    """Return the value of an enumeration that a text stands for: as it is, else without case."""
    for fold in (str, str.casefold):
        wanted = fold(text)
        found = [choice for choice in choices if fold(word(choice)) == wanted]
        texts = [choice for choice in found if isinstance(choice, str)]
        if len(found) == 1 or len(texts) == 1:
            return (texts or found)[0]
        if found:
            raise Unfit(f"fits {named(found)}: say which, not {said(text)}", is_near=True)
    if _WHOLE.fullmatch(text) and len(text) <= _MOST_DIGITS:
        number = _whole(text)
        for choice in choices:
            if type(choice) is int and choice == number:
                return choice
    near = nearest(text, [choice for choice in choices if isinstance(choice, str)])
    hint = f"; did you mean {near}?" if near else ""
    raise Unfit(f"must be {kind_words({'enum': choices})}, not {said(text)}", hint=hint)


def _typed(value: Any) -> str | None:
    """Return how a value would be typed; None: only as JSON."""
    match value:
        case float() if not math.isfinite(value):
            return word("nan" if math.isnan(value) else ("inf" if value > 0 else "-inf"))
        case bytes():
            return str(json.loads(json_text(value)))
        case list():
            parts = [_typed(item) for item in value]
            return ",".join(part or "" for part in parts)
        case dict():
            return None
        case _:
            return word(value)


def _same(read: Any, value: Any) -> bool:
    """Return whether it is the same plain value, of the same kind, NaN too."""
    return repr(read) == repr(value)


def _seconds(text: Any) -> Decimal | None:
    import datetime  # noqa: PLC0415  # seldom needed

    import msgspec  # noqa: PLC0415

    try:
        duration = msgspec.convert(text, datetime.timedelta)
    except msgspec.ValidationError:
        return None
    return Decimal(duration // datetime.timedelta(microseconds=1)) / 1_000_000


def _raise(faults: Sequence[Unfit]) -> None:
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise Unfit("; ".join(map(str, faults)))
