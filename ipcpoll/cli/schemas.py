"""JSON Schemas as programs describe themselves with: what fits one, in its own words. No I/O.

What is promised:

* `Schemas.fit` gives the plain value that is sent, or raises `Unfit`, which names the place and
  what must be so. It refuses nothing that the schema allows.
* A schema is another program's word: whatever is in it, nothing else is raised, and no value is
  walked deeper than a message can be. What it does not understand it leaves to the program.

It understands what programs of ipcpoll say (2020-12, but for keywords that those never use).
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from .bounds import check_bounds, check_length, counted
from .kinds import (
    FORMATS,
    MOST_NAMED,
    Schema,
    choices_of,
    is_bytes,
    is_text,
    kind_words,
    listed,
    said,
    unknown,
)
from .unfit import Unfit

MOST_DEEP: Final = 64
"""Schemas inside schemas, as for a message."""

_MOST_BRANCHES: Final = 256
"""Of one schema, and what is looked at to find them."""

_MOST_LOOKED_AT: Final = 1_000_000
"""Values of one value. Branches inside branches may ask for each again and again."""

LEAST_INT: Final = -(2**63)
MOST_INT: Final = 2**64 - 1
NOT_FINITE: Final = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
"""How JSON says what it has no number for."""


class Schemas:
    """Schemas that may refer to `definitions`, the ``$defs`` of one description."""

    def __init__(self, definitions: Mapping[str, Any] | None = None) -> None:
        self._definitions = definitions or {}
        self._left = 0  # values and branches that are still looked at

    def resolve(self, schema: Any) -> Schema:
        """Return a schema without its reference: what stands beside that is added, and wins."""
        for _ in range(MOST_DEEP):
            if not isinstance(schema, Mapping):
                return {} if schema is not False else {"not": {}}
            reference = schema.get("$ref")
            if not isinstance(reference, str):
                return schema
            siblings = {key: value for key, value in schema.items() if key != "$ref"}
            referred = self._definitions.get(_unescaped(reference.removeprefix("#/$defs/")))
            schema = {**referred, **siblings} if isinstance(referred, Mapping) else siblings
        return {}

    def branches(self, schema: Schema) -> list[Schema]:
        """Return what a resolved schema may be: one of these, without any of its own; itself."""
        found: list[Schema] = []
        waiting, looked_at = [schema], 0
        while waiting and looked_at < _MOST_BRANCHES:  # some refer to themselves
            one = waiting.pop()
            looked_at += 1
            several = listed(one.get("anyOf")) or listed(one.get("oneOf"))
            kinds = one.get("type")
            if several:
                outer = {key: one[key] for key in one.keys() - {"anyOf", "oneOf"}}
                inner = [{**outer, **self.resolve(each)} for each in several[:_MOST_BRANCHES]]
                waiting += reversed(inner)
            elif isinstance(kinds, list):
                found += [{**one, "type": kind} for kind in kinds[:_MOST_BRANCHES]]
            else:
                found.append(one)
        return found or [{}]

    def words(self, schema: Any) -> str:
        """Return what a schema allows, for a sentence: ``an integer or null``."""
        branches = self.branches(self.resolve(schema))
        branches.sort(key=lambda branch: branch.get("type") == "null")
        return " or ".join(dict.fromkeys(map(kind_words, branches)))

    def properties(self, schema: Schema) -> Mapping[str, Any]:
        """Return the fields of an object's resolved schema."""
        found = schema.get("properties")
        return found if isinstance(found, Mapping) else {}

    def holds_secret(self, schema: Any) -> bool:
        """Return whether a value may not be shown: it is a secret, or one is in it."""
        waiting, seen = [schema], set[str]()
        while waiting:
            one = waiting.pop()
            if not isinstance(one, Mapping):
                continue
            reference = one.get("$ref")
            if isinstance(reference, str):
                if reference not in seen:
                    seen.add(reference)
                    waiting.append(self.resolve(one))
                continue
            if one.get("writeOnly") is True:
                return True
            waiting += self.properties(one).values()
            waiting += [one.get("items"), one.get("additionalProperties")]
            waiting += [*listed(one.get("anyOf")), *listed(one.get("oneOf"))]
            waiting += listed(one.get("prefixItems"))
        return False

    # -----------------------------------------------------------------------------------------
    # What fits

    def fit(self, value: Any, schema: Any, depth: int = 0) -> Any:
        """Return the plain value for one in the form of JSON. Raises Unfit.

        Bytes come as base64, and what is not finite as "nan", "inf", "-inf".
        """
        if depth > MOST_DEEP:
            raise Unfit(f"is nested deeper than {MOST_DEEP} levels")
        self._left = self._left - 1 if depth else _MOST_LOOKED_AT
        if self._left < 0:  # the program looks at it itself
            return _anything(value, depth)
        branches = self.branches(self.resolve(schema))
        if len(branches) == 1:
            return self._fit(value, branches[0], depth)
        # Where it fits exactly, it is not read as something else: 5.0 as 5, "nan" as no number.
        passed_over = ""
        if type(value) is float and any(branch.get("type") == "number" for branch in branches):
            passed_over = "integer"
        elif isinstance(value, str) and any(map(is_text, branches)):
            passed_over = "number"
        faults: list[Unfit] = []
        for branch in branches:
            if passed_over and branch.get("type") == passed_over:
                continue
            try:
                return self._fit(value, branch, depth)
            except Unfit as unfit:
                faults.append(unfit)
        raise self.refusal(value, branches, faults)

    def refusal(self, value: Any, branches: Sequence[Schema], faults: Sequence[Unfit]) -> Unfit:
        """Return the one refusal for a value that no branch took."""
        near = [fault for fault in faults if fault.is_near or fault.place]
        if len(near) == 1 or len(faults) == len(branches) == 1:
            return (near or list(faults))[0]
        words = f"must be {self.words({'anyOf': list(branches)})}, not {said(value)}"
        return Unfit(words, hint=faults[0].hint if len(faults) == 1 else "")

    def _fit(self, value: Any, schema: Schema, depth: int) -> Any:
        if "not" in schema:
            raise Unfit("is not allowed here", is_near=True)
        choices = choices_of(schema)
        if choices is not None:
            return _chosen(value, choices)
        match schema.get("type"):
            case "null":
                _expect(value is None, value, "null")
            case "boolean":
                _expect(type(value) is bool, value, "true or false")
            case "integer":
                return self.fit_number(_integer(value), schema)
            case "number":
                if isinstance(value, str) and value in NOT_FINITE:
                    value = NOT_FINITE[value]
                _expect(type(value) in (int, float), value, "a number")
                return self.fit_number(value, schema)
            case "string":
                _expect(isinstance(value, str), value, kind_words(schema))
                return self.fit_text(value, schema)
            case "array":
                _expect(isinstance(value, list | tuple), value, "a list")
                return self._list(value, schema, depth)
            case "object":
                _expect(isinstance(value, Mapping), value, "an object")
                return self.fit_object(value, schema, depth)
            case _:
                return _anything(value, depth)
        return value

    def fit_number(self, value: Any, schema: Schema) -> Any:
        """Return a number that is in its bounds. Raises Unfit."""
        if type(value) is int and not LEAST_INT <= value <= MOST_INT:
            raise Unfit("is too large a number to be sent", is_near=True)
        check_bounds(value, schema)
        return value

    def fit_text(self, value: str, schema: Schema) -> Any:
        """Return text that is as it must be, or the bytes for which it stands. Raises Unfit."""
        check_length("string", len(value), schema)
        if is_bytes(schema):
            try:
                return base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError):  # the second: it has other letters
                raise Unfit(f"must be bytes in base64, not {said(value)}") from None
        kind, words = FORMATS.get(str(schema.get("format")), (str, ""))
        if kind is not str:
            try:
                msgspec.convert(value, kind)
            except msgspec.ValidationError:
                raise Unfit(f"must be {words}, not {said(value)}") from None
        pattern = schema.get("pattern")
        if isinstance(pattern, str) and not _matches(pattern, value):
            words = f"must match the pattern {pattern!r}, not be {said(value)}"
            raise Unfit(words, is_near=True)
        return value

    def fit_bytes(self, value: bytes, schema: Schema) -> bytes:
        """Return bytes of which there are enough, and not too many. Raises Unfit."""
        # Their bounds are those of the base64, as it is a schema of JSON.
        check_length("string", len(base64.b64encode(value)), schema)
        return value

    def fit_list(self, values: Sequence[Any], schema: Schema) -> list[Any]:
        """Return a list that has as many items as it must. Raises Unfit."""
        most = len(listed(schema.get("prefixItems")))
        if schema.get("items") is False and len(values) != most:
            words = f"must have {counted(most, 'item', 'items')}, not {len(values)}"
            raise Unfit(words, is_near=True)
        check_length("array", len(values), schema)
        return list(values)

    def item(self, schema: Schema, index: int) -> Any:
        """Return the schema of an item of a list."""
        first = listed(schema.get("prefixItems"))
        return first[index] if index < len(first) else schema.get("items", {})

    def _list(self, values: Sequence[Any], schema: Schema, depth: int) -> Any:
        self.fit_list(values, schema)
        fitted = []
        for index, value in enumerate(values):
            try:
                fitted.append(self.fit(value, self.item(schema, index), depth + 1))
            except Unfit as unfit:
                raise unfit.at(f"[{index}]") from None
        return fitted

    def fit_object(
        self, values: Mapping[str, Any], schema: Schema, depth: int = 0
    ) -> dict[str, Any]:
        """Return an object whose fields fit, none is missing, and none is unknown. Raises Unfit."""
        known = self.properties(schema)
        others = schema.get("additionalProperties", True)
        fitted = {}
        for name, value in values.items():
            if name not in known and others is False:
                raise unknown(name, list(known))
            try:
                fitted[name] = self.fit(value, known.get(name, others), depth + 1)
            except Unfit as unfit:
                raise unfit.at(f".{name}") from None
        missing = [name for name in listed(schema.get("required")) if name not in values]
        if missing:
            raise Unfit(f"lacks {' and '.join(map(str, missing[:MOST_NAMED]))}", is_near=True)
        check_length("object", len(fitted), schema)
        return fitted


# ---------------------------------------------------------------------------------------------
# Of one value


def _unescaped(pointer: str) -> str:
    return pointer.replace("~1", "/").replace("~0", "~")


def _anything(value: Any, depth: int) -> Any:
    """Return a value that no schema says anything about, if it can be sent."""
    if depth > MOST_DEEP:
        raise Unfit(f"is nested deeper than {MOST_DEEP} levels")
    match value:
        case int() if not LEAST_INT <= value <= MOST_INT:
            raise Unfit("is too large a number to be sent", is_near=True)
        case list() | tuple():
            return [_anything(item, depth + 1) for item in value]
        case Mapping():
            return {str(key): _anything(item, depth + 1) for key, item in value.items()}
        case _:
            return value


def _expect(fits: bool, value: Any, words: str) -> None:
    if not fits:
        raise Unfit(f"must be {words}, not {said(value)}")


def _integer(value: Any) -> Any:
    if type(value) is float and value.is_integer():
        return int(value)
    _expect(type(value) is int, value, "an integer")
    return value


def _chosen(value: Any, choices: Sequence[Any]) -> Any:
    for choice in choices:
        if type(choice) is type(value) and choice == value:
            return value
    raise Unfit(f"must be {kind_words({'enum': choices})}, not {said(value)}")


def _matches(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except (re.error, OverflowError, RecursionError):  # no pattern that is known here
        return True
