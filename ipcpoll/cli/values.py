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

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

from . import durations
from .changes import TOGGLE, Change, added, amount_of, can_be_added_to
from .kinds import (
    Schema,
    choices_of,
    is_bytes,
    is_text,
    kind_words,
    listed,
    named,
    said,
    unknown,
)
from .scalars import as_typed, is_whole_number, parsed, read_boolean, read_choice, read_number
from .schemas import Schemas
from .text import json_text
from .unfit import Unfit

NULL: Final = "null"
_ALSO_NULL: Final = "none"
"""Where nothing else is called so."""

_ASSIGNMENT: Final = re.compile(r"([^=]*?)(:=|\+=|-=|=)(.*)", re.DOTALL)
_IS_SECRET: Final = "does not fit (it is a secret: no more is said)"


class Assignment(NamedTuple):
    """One word, ``name=text``."""

    name: str
    sign: str
    """``=``, ``:=``, ``+=``, ``-=``."""
    text: str


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
        text = as_typed(value)
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
            return read_choice(text, choices)
        match schema.get("type"):
            case "null":
                if text.casefold() != NULL:
                    raise Unfit(f"must be null, not {said(text)}")
                return None
            case "boolean":
                return read_boolean(text)
            case "integer" if takes_floats and not is_whole_number(text):
                raise Unfit(f"must be an integer, not {said(text)}")
            case "integer" | "number":
                return self.schemas.fit_number(read_number(text, schema), schema)
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
                    branch = self._numeric(change.schema) or {}
                    amount = change.value if change.sign == "+=" else -change.value
                    return added(self.schemas, branch, old, amount)
        except Unfit as unfit:
            raise self._silent(unfit, change.schema).at(change.name) from None

    def _amount(self, assignment: Assignment, schema: Any) -> Decimal:
        name, sign, text = assignment
        branch = self._numeric(schema)
        if branch is None:
            raise Unfit(f"takes {self.schemas.words(schema)}; {sign} is for numbers", name)
        try:
            return amount_of(text, sign, branch)
        except Unfit as unfit:
            raise self._silent(unfit, schema).at(name) from None

    def _numeric(self, schema: Any) -> Schema | None:
        branches = self.schemas.branches(self.schemas.resolve(schema))
        return next(filter(can_be_added_to, branches), None)

    def _can_toggle(self, schema: Any) -> bool:
        branches = self.schemas.branches(self.schemas.resolve(schema))
        return any(branch.get("type") == "boolean" for branch in branches)


def _order(branch: Schema) -> int:
    """Return when a branch is asked: null, integers, what else is allowed, any text."""
    if is_text(branch):
        return 3
    return {"null": 0, "integer": 1}.get(str(branch.get("type")), 2)


def _same(read: Any, value: Any) -> bool:
    """Return whether it is the same plain value, of the same kind, NaN too."""
    return repr(read) == repr(value)


def _raise(faults: Sequence[Unfit]) -> None:
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise Unfit("; ".join(map(str, faults)))
