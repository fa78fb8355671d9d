"""Forms: how the values of one annotation travel. One small object for each annotation. No I/O.

`annotations` makes them when a class is read. A form knows three things:

* `Form.plain` makes a plain value of a value, or refuses it. It takes exactly what the annotation
  says and nothing that would arrive as something else: no subclass, no member of an enum for its
  number, no text for a path. The one conversion is that of an int to the float that equals it.
* `Form.check` finds in a plain value what msgspec lets through: keys that a class does not have,
  values out of range, two keys that mean the same. None where there is nothing to find.
* `Form.explain` finds why msgspec does not take a plain value, to say it in our words.

All three raise `Unfit`, which learns on its way up where it was found; so the place costs nothing
where nothing is wrong.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, Final, TypeAlias
from uuid import UUID

import msgspec

from .._shown import shown_value
from .._wire.diagnosis import INT_MAX, INT_MIN, shorten
from .constraints import LENGTH, NUMBER, PATTERN, ZONE, Constraint

Check: TypeAlias = Callable[[Any], None]

SCALARS: Final[frozenset[type]] = frozenset({bool, int, float, str, bytes, type(None)})
NULL, BOOL, INT, FLOAT, TEXT, BYTES, ARRAY, MAP = (
    "null",
    "bool",
    "int",
    "float",
    "text",
    "bytes",
    "array",
    "map",
)
"""The kinds of plain values."""
_NONE: Final[frozenset[Any]] = frozenset()
_RANGE: Final = "must be from -2^63 to 2^64-1"
_MANY: Final = 200  # characters of a list of what is valid


class Unfit(Exception):
    """A value that does not fit its annotation. Internal: it becomes a sentence with a place."""

    def __init__(self, sentence: str, kind: type[Exception] = TypeError, *, clause: bool = True):
        super().__init__(sentence)
        self.sentence = sentence
        self.kind = kind
        """What a caller is told: TypeError, or ValueError where the type was right."""
        self.clause = clause
        """Whether the place is the subject of the sentence."""
        self.steps: list[str] = []

    def within(self, step: str) -> None:
        """Note one step of the place, from the inside out."""
        self.steps.append(step)

    def at(self, place: str) -> str:
        """Return the sentence, for what stands at `place`."""
        where = place + shorten_place(self.steps)
        if self.clause or self.sentence.startswith(f"{where} "):
            return f"{where} {self.sentence}" if self.clause else self.sentence
        return f"{where}: {self.sentence}"


def shorten_place(steps: list[str]) -> str:
    """Return the steps, outermost first, and in a deep place only the beginning of it."""
    return shorten("".join(reversed(steps)))


def convert(plain: Any, kind: Any) -> Any:
    """Return what a plain value stands for. Raises msgspec.ValidationError."""
    try:
        # Without `bytes` among the builtin types, msgspec takes text for base64.
        return msgspec.convert(
            plain, kind, builtin_types=(bytes,), str_keys=True, dec_hook=_decode_hook
        )
    except (TypeError, NotImplementedError) as error:  # an array in a set can't be hashed
        raise msgspec.ValidationError(str(error)) from None


def _decode_hook(kind: type, value: Any) -> Any:
    if isinstance(value, str):
        return kind(value)
    raise TypeError("a path travels as text")


class Form(ABC):
    """How the values of one annotation travel."""

    words: str
    """What must stand in a plain value: "an int"."""
    name: str = ""
    """What a value must be, if that is not the same: "a `date`"."""
    classes: frozenset[type] = _NONE
    """The classes of the values that it takes, each of them alone and no subclass."""
    as_is: frozenset[type] = _NONE
    """Those of them whose values travel as they are, all of them."""
    kinds: frozenset[str] = _NONE
    """What kinds of plain values these become."""
    subjects: frozenset[str] = _NONE
    """What constraints may look at."""
    check: Check | None = None

    @abstractmethod
    def plain(self, value: Any) -> Any:
        """Return the plain value that a value travels as."""

    @abstractmethod
    def explain(self, plain: Any, *, lenient: bool) -> None:
        """Raise Unfit where msgspec does not take a plain value. `lenient`: keys may be unknown."""

    def parts(self) -> Iterable[Form]:
        """Return the forms inside."""
        return ()

    def wrong(self, plain: Any) -> Unfit:
        """Return why a plain value is refused."""
        return Unfit(f"must be {self.words}, not {shown_value(plain)}")

    def unlike(self, value: Any) -> Unfit:
        """Return why a value is refused."""
        words = self.name or self.words
        return Unfit(f"must be {words}, not {shown_value(value)}{_hint(value, self.classes)}")


def is_limited(form: Form) -> bool:
    """Return whether a constraint stands anywhere in it."""
    return any(isinstance(part, Limited) for part in _all_parts(form))


def _holds_moments(form: Form) -> bool:
    """Return whether two that differ may be the same moment where they arrive.

    Between time zones, no two are equal in the hour that comes twice, when the clock is set back;
    and not zones are carried but offsets.
    """
    return any(ZONE in part.subjects for part in _all_parts(form))


def _all_parts(form: Form) -> Iterator[Form]:
    """Give a form and all the forms inside, each once."""
    waiting, seen = [form], {id(form)}
    while waiting:
        form = waiting.pop()
        yield form
        for part in form.parts():
            if id(part) not in seen:
                seen.add(id(part))
                waiting.append(part)


# ---------------------------------------------------------------------------------------------
# What has no parts


class Scalar(Form):
    """bool, int, str, bytes, None: as they are."""

    def __init__(self, kind: type) -> None:
        name = "None" if kind is type(None) else kind.__name__
        self.words = {"None": "None", "int": "an int", "bytes": "bytes"}.get(name, f"a {name}")
        self.classes = self.as_is = frozenset({kind})
        self.kinds = frozenset({_KIND_OF[kind]})
        self.subjects = frozenset(_SUBJECTS.get(kind, ()))
        self._kind: Any = kind

    def plain(self, value: Any) -> Any:
        if value.__class__ is not self._kind:
            raise self.unlike(value)
        return value

    def explain(self, plain: Any, *, lenient: bool) -> None:
        if type(plain) is not self._kind:
            raise self.wrong(plain)


class Float(Form):
    """A float, or an int that a float equals."""

    words = "a float"
    classes = frozenset({float, int})
    as_is = frozenset({float})
    kinds = frozenset({FLOAT})
    subjects = frozenset({NUMBER})

    def plain(self, value: Any) -> Any:
        if value.__class__ is float:
            return value
        if value.__class__ is not int:
            raise self.unlike(value)
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if number != value:
            raise Unfit(f"must be a float, and none equals {shown_value(value)}", ValueError)
        return number

    def explain(self, plain: Any, *, lenient: bool) -> None:
        if type(plain) not in (float, int):
            raise self.wrong(plain)


class Textual(Form):
    """What travels as text: a date, a Decimal, a path."""

    kinds = frozenset({TEXT})

    def __init__(
        self, kind: type, expected: type, words: str, write: Callable[[Any], str], zoned: bool
    ) -> None:
        self.words = words
        self.name = f"a `{kind.__name__}`"
        self.classes = frozenset({expected})
        self.subjects = frozenset({ZONE}) if zoned else _NONE
        self._kind = kind
        self._expected = expected
        self._write = write

    def plain(self, value: Any) -> Any:
        if value.__class__ is not self._expected:
            raise self.unlike(value)
        return self._write(value)

    def explain(self, plain: Any, *, lenient: bool) -> None:
        try:
            convert(plain, self._kind)
        except msgspec.ValidationError:
            raise self.wrong(plain) from None


def textual(kind: type) -> Textual:
    """Return the form of a type that travels as text. Raises TypeError for a path of elsewhere."""
    if issubclass(kind, PurePath):
        try:
            expected = type(kind("a"))  # Path makes a PosixPath
        except NotImplementedError:
            raise TypeError("there are no such paths on this system") from None
        return Textual(kind, expected, "a path", str, zoned=False)
    words, write = _TEXTUAL[kind]
    return Textual(kind, kind, words, write, zoned=kind in (datetime, time))


def _write_moment(value: Any) -> str:
    """Return a datetime or a time as RFC 3339 has it."""
    offset = value.utcoffset()
    if offset is None:
        if value.tzinfo is not None:
            raise Unfit(
                f"has the zone {str(value.tzinfo)[:40]}, which says no offset for it; "
                "give a fixed offset, or a datetime",
                ValueError,
            )
        if value.fold:
            raise Unfit("has fold=1 and no zone, which would be lost; give it a zone", ValueError)
    elif offset.seconds % 60 or offset.microseconds:
        raise Unfit(
            f"has the offset {offset} from UTC, and only whole minutes are carried; "
            "give it in UTC: `value.astimezone(UTC)`",
            ValueError,
        )
    text = str(value.isoformat())
    return text[:-6] + "Z" if text.endswith("+00:00") else text


def _write_duration(value: timedelta) -> str:
    sign = ""
    if value.days < 0:
        value, sign = -value, "-"
    text = f"{sign}P{value.days}D" if value.days else f"{sign}P"
    if value.seconds or value.microseconds or not value.days:
        text += f"T{value.seconds}"
        if value.microseconds:
            text += f".{value.microseconds:06}".rstrip("0")
        text += "S"
    return text


_TEXTUAL: Final[dict[type, tuple[str, Callable[[Any], str]]]] = {
    datetime: ("a datetime as in RFC 3339, like 2026-01-02T03:04:05Z", _write_moment),
    date: ("a date like 2026-01-02", lambda value: str(value.isoformat())),
    time: ("a time like 01:02:03", _write_moment),
    timedelta: ("a duration of ISO 8601, like P1DT1.5S", _write_duration),
    Decimal: ("a decimal number", str),
    UUID: ("a UUID", str),
}
TEXTUAL: Final = tuple(_TEXTUAL)


class Choice(Form):
    """The members of an Enum, or of a Literal."""

    def __init__(self, kind: Any, members: Iterable[tuple[Any, Any]], name: str = "") -> None:
        """`members` are pairs of a member and its plain value."""
        self._kind = kind
        self._plain = {(type(member), member): plain for member, plain in members}
        plains = list(self._plain.values())
        self.words = _one_of(plains)
        self.name = name
        self.classes = frozenset(kind for kind, _ in self._plain)
        self.kinds = frozenset(_KIND_OF[type(plain)] for plain in plains)

    @property
    def plains(self) -> list[Any]:
        """What its members travel as."""
        return list(self._plain.values())

    @property
    def is_verbatim(self) -> bool:
        """Whether its members travel as they are: those of a Literal."""
        return not any(issubclass(kind, Enum) for kind in self.classes)

    def plain(self, value: Any) -> Any:
        try:
            return self._plain[value.__class__, value]
        except (KeyError, TypeError):  # which may not even be hashable
            raise self.unlike(value) from None

    def explain(self, plain: Any, *, lenient: bool) -> None:
        try:
            convert(plain, self._kind)
        except msgspec.ValidationError:
            raise self.wrong(plain) from None


def _one_of(plains: list[Any]) -> str:
    text = ", ".join(map(shown_value, plains))
    if len(text) > _MANY:
        text = text[:_MANY].rpartition(",")[0] + ", …"
    return f"one of {text}" if len(plains) > 1 else text


class Bare(Form):
    """What stands in a bare list or dict: any plain value, and no other."""

    words = "a plain value"
    as_is = SCALARS

    def plain(self, value: Any) -> Any:
        kind = value.__class__
        if kind is list:
            if not set(map(type, value)) <= SCALARS:
                return _each(self.plain, value)
        elif kind is dict:
            return BARE_MAP.plain(value)
        elif kind not in SCALARS:
            raise Unfit(
                f"is {shown_value(value)}; without an annotation only None, bool, int, float, str, "
                "bytes, list and dict are carried" + _hint(value, _PLAIN)
            )
        return value

    def explain(self, plain: Any, *, lenient: bool) -> None:
        pass


# ---------------------------------------------------------------------------------------------
# What has items


class Array(Form):
    """A list, set, frozenset or tuple of any length."""

    kinds = frozenset({ARRAY})
    subjects = frozenset({LENGTH})

    def __init__(self, kind: type, annotation: Any, item: Form) -> None:
        """`annotation` is the whole: `set[int]`."""
        self.words = "a list"
        self.name = f"a {kind.__name__}"
        self.classes = frozenset({kind})
        self._kind: Any = kind
        self._annotation = annotation
        self._hashes = kind in (set, frozenset)
        self._may_merge = self._hashes and _holds_moments(item)
        self._item = item
        if item.check is not None or self._hashes:
            self.check = self._check

    def plain(self, value: Any) -> Any:
        if value.__class__ is not self._kind:
            raise self.unlike(value)
        item = self._item
        if set(map(type, value)) <= item.as_is:
            return value if self._kind is list else list(value)
        plain = _each(item.plain, value)
        if self._may_merge:
            self._refuse_twice(plain)
        return plain

    def _check(self, plain: Any) -> None:
        if type(plain) is not list:
            return
        check = self._item.check
        if check is not None:
            for index, item in enumerate(plain):
                try:
                    check(item)
                except Unfit as unfit:
                    unfit.within(f"[{index}]")
                    raise
        if self._hashes:
            self._refuse_twice(plain)

    def _refuse_twice(self, plain: list[Any]) -> None:
        try:
            items = convert(plain, self._annotation)
        except msgspec.ValidationError:
            return  # told by `explain`
        if len(items) != len(plain):
            raise Unfit("has two items that mean the same", ValueError)

    def explain(self, plain: Any, *, lenient: bool) -> None:
        if type(plain) is not list:
            raise self.wrong(plain)
        for index, item in enumerate(plain):
            try:
                self._item.explain(item, lenient=lenient)
                if self._hashes and type(item) in (list, dict) and isinstance(self._item, Bare):
                    raise Unfit(f"is {shown_value(item)}, which can't stand in a set")
            except Unfit as unfit:
                unfit.within(f"[{index}]")
                raise

    def parts(self) -> Iterable[Form]:
        return (self._item,)


class Positions(Form):
    """A tuple in which each place has its type: also a NamedTuple."""

    kinds = frozenset({ARRAY})

    def __init__(self, kind: type, items: list[Form], names: list[str], required: int) -> None:
        many = len(items) if required == len(items) else f"{required} to {len(items)}"
        self.words = f"a list of {many}"
        self.name = f"a {kind.__name__} of {len(items)}"
        self.classes = frozenset({kind})
        self._kind: Any = kind
        self._items = items
        self._steps = [f".{name}" for name in names] or [f"[{i}]" for i in range(len(items))]
        self._required = required
        if any(item.check is not None for item in items):
            self.check = self._check

    def plain(self, value: Any) -> Any:
        if value.__class__ is not self._kind:
            raise self.unlike(value)
        if len(value) != len(self._items):
            raise self._wrong_length(value)
        return self._each([form.plain for form in self._items], value)

    def _check(self, plain: Any) -> None:
        if type(plain) is list:
            self._each([form.check for form in self._items], plain)

    def explain(self, plain: Any, *, lenient: bool) -> None:
        if type(plain) is not list:
            raise self.wrong(plain)
        if not self._required <= len(plain) <= len(self._items):
            raise self._wrong_length(plain)
        for form, item, step in zip(self._items, plain, self._steps, strict=False):
            _explain(form, item, step, lenient)

    def _wrong_length(self, value: Any) -> Unfit:
        return Unfit(f"must be {self.words}, not of {len(value)}", ValueError)

    def _each(self, functions: list[Any], items: Any) -> list[Any]:
        results: list[Any] = []
        for function, item, step in zip(functions, items, self._steps, strict=False):
            try:
                results.append(None if function is None else function(item))
            except Unfit as unfit:
                unfit.within(step)
                raise
        return results

    def parts(self) -> Iterable[Form]:
        return self._items


class Map(Form):
    """A dict. Its keys travel as text."""

    words = "a map"
    name = "a dict"
    classes = frozenset({dict})
    kinds = frozenset({MAP})
    subjects = frozenset({LENGTH})

    def __init__(self, kind: Any, key: Form, value: Form) -> None:
        self._kind = dict[kind, None]
        self._key = key
        self._value = value
        is_choice = isinstance(unwrapped(key), Choice)
        self._has_text = key.classes == frozenset({str}) and not is_choice
        self._is_int = key.classes == frozenset({int}) and not is_choice
        self._may_merge = _holds_moments(key)
        if value.check is not None or key.check is not None or not self._has_text:
            self.check = self._check

    def plain(self, value: Any) -> Any:
        if value.__class__ is not dict:
            raise self.unlike(value)
        key_form = self._key
        if (
            self._has_text
            and set(map(type, value)) <= key_form.as_is
            and set(map(type, value.values())) <= self._value.as_is
        ):
            return value
        plain: dict[str, Any] = {}
        for key, item in value.items():
            try:
                text = _key_text(key_form.plain(key))
            except Unfit as unfit:
                raise Unfit(f"has a key that {unfit.sentence}", unfit.kind) from None
            if text in plain:
                raise Unfit(f"has two keys that travel as {shown_value(text)}", ValueError)
            try:
                plain[text] = self._value.plain(item)
            except Unfit as unfit:
                unfit.within(f"[{shown_value(key)}]")
                raise
        if self._may_merge:
            self._refuse_twice(plain, self._keys(plain))
        return plain

    def _refuse_twice(self, plain: dict[str, Any], keys: Any) -> None:
        if keys is not None and len(keys) != len(plain):
            raise Unfit("has two keys that mean the same", ValueError)

    def _check(self, plain: Any) -> None:
        if type(plain) is not dict:
            return
        keys = self._keys(plain)
        self._refuse_twice(plain, keys)
        if keys is not None:
            if self._is_int:
                for text, key in zip(plain, keys, strict=True):
                    if not INT_MIN <= key <= INT_MAX:
                        raise Unfit(f"has the key {shown_value(text)}, which {_RANGE}", ValueError)
            if self._key.check is not None:
                for text, key in zip(plain, keys, strict=True):
                    try:
                        # Constraints look at plain values; of a date that is its text.
                        self._key.check(key if type(key) in SCALARS else text)
                    except Unfit as unfit:
                        words = f"has the key {shown_value(text)}, which {unfit.sentence}"
                        raise Unfit(words, unfit.kind) from None
        check = self._value.check
        if check is not None:
            for key, item in plain.items():
                try:
                    check(item)
                except Unfit as unfit:
                    unfit.within(f"[{shown_value(key)}]")
                    raise

    def explain(self, plain: Any, *, lenient: bool) -> None:
        if type(plain) is not dict:
            raise self.wrong(plain)
        fits = self._keys(plain) is not None
        for key, item in plain.items():
            if not fits and self._keys({key: None}) is None:
                raise Unfit(f"has the key {shown_value(key)}, which must be {self._key.words}")
            _explain(self._value, item, f"[{shown_value(key)}]", lenient)

    def _keys(self, plain: dict[str, Any]) -> Any:
        """Return the keys that the texts stand for; None where one stands for none."""
        if self._has_text:
            return plain
        try:
            return convert(dict.fromkeys(plain), self._kind)
        except msgspec.ValidationError:
            return None

    def parts(self) -> Iterable[Form]:
        return (self._key, self._value)


def _key_text(plain: Any) -> str:
    """Return a key as text."""
    if type(plain) is str:
        return plain
    if type(plain) is int and not INT_MIN <= plain <= INT_MAX:
        raise Unfit(_RANGE, ValueError)
    return repr(plain)


class Record(Form):
    """A dataclass or a TypedDict."""

    kinds = frozenset({MAP})

    def __init__(self, cls: type, is_dict: bool) -> None:
        self.owner = cls.__name__
        self.names: frozenset[str] = frozenset()
        """Of the fields, known when the first of them is read: a recursive one meets itself."""
        self.words = f"a map of the fields of {cls.__name__}"
        self.name = f"a dict as {cls.__name__} says" if is_dict else f"a `{cls.__name__}`"
        self.classes = frozenset({dict if is_dict else cls})
        self.fields: dict[str, Form] = {}
        self._rows: list[tuple[str, frozenset[type], Callable[[Any], Any]]] = []
        self.required: frozenset[str] = frozenset()
        self.unset: set[str] = set()
        """The fields that are left out while they are `msgspec.UNSET`."""
        self.inner: dict[str, Check] = {}
        """What is to be checked in its fields."""
        self._cls: Any = dict if is_dict else cls
        self.check = self.check_fields

    def add(self, name: str, form: Form) -> None:
        """Add a field."""
        self.fields[name] = form
        self._rows.append((name, form.as_is, form.plain))
        if form.check is not None:
            self.inner[name] = form.check

    def plain(self, value: Any) -> Any:
        if value.__class__ is not self._cls:
            raise self.unlike(value)
        return self._plain_dict(value) if self._cls is dict else self._plain_record(value)

    def _plain_record(self, value: Any) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for name, as_is, make_plain in self._rows:
            try:
                item = getattr(value, name)
                if item.__class__ in as_is:
                    plain[name] = item
                elif item is not msgspec.UNSET or name not in self.unset:
                    plain[name] = make_plain(item)
            except AttributeError:
                raise Unfit(f"has no value for the field `{name}`") from None
            except Unfit as unfit:
                unfit.within(f".{name}")
                raise
        return plain

    def _plain_dict(self, value: dict[Any, Any]) -> dict[str, Any]:
        self._refuse_unknown(value)
        self._refuse_missing(value)
        plain: dict[str, Any] = {}
        for name, item in value.items():
            try:
                plain[name] = self.fields[name].plain(item)
            except Unfit as unfit:
                unfit.within(f".{name}")
                raise
        return plain

    def check_fields(self, plain: Any) -> None:
        """See `Form.check`."""
        if type(plain) is not dict:
            return
        if not plain.keys() <= self.names:
            self._refuse_unknown(plain)
        for name, check in self.inner.items():
            if name in plain:
                try:
                    check(plain[name])
                except Unfit as unfit:
                    unfit.within(f".{name}")
                    raise

    def explain(self, plain: Any, *, lenient: bool) -> None:
        if type(plain) is not dict:
            raise self.wrong(plain)
        if not lenient:
            self._refuse_unknown(plain)
        for name, form in self.fields.items():
            if name in plain:
                _explain(form, plain[name], f".{name}", lenient)
        self._refuse_missing(plain)

    def _refuse_unknown(self, keys: Mapping[Any, Any]) -> None:
        for key in keys:
            if key not in self.names:
                words = unknown_name(self.owner, "field", key, self.names)
                if not words.endswith("?"):  # else it is a slip of who typed it
                    words += f"; {versions_of(self.owner)}"
                raise Unfit(words, clause=False)

    def _refuse_missing(self, keys: Mapping[Any, Any]) -> None:
        for name in self.fields:
            if name in self.required and name not in keys:
                unfit = Unfit(f"is missing; {versions_of(self.owner)}")
                unfit.within(f".{name}")
                raise unfit

    def parts(self) -> Iterable[Form]:
        return self.fields.values()


# ---------------------------------------------------------------------------------------------
# What stands around others


class Either(Form):
    """A union whose members can be told apart on the wire."""

    def __init__(self, members: Iterable[Form]) -> None:
        self.members = members = _flat(members)
        self._by_class: dict[type, list[Form]] = {}
        for member in members:
            for kind in member.classes:
                if not (kind is int and _is_float(member)):
                    self._by_class.setdefault(kind, []).append(member)
        for member in filter(_is_float, members):  # it takes an int where nobody else does
            self._by_class.setdefault(int, [member])
        self.words = either(member.words for member in members)
        self.name = either(member.name or member.words for member in members)
        self.classes = frozenset(self._by_class)
        self.as_is = _NONE.union(*(member.as_is for member in members))
        self.kinds = _NONE.union(*(member.kinds for member in members))
        self.subjects = _NONE.union(*(member.subjects for member in members))
        # Of the members that become the same kind none has a check: `alike` sees to it.
        self._checks: dict[type, Check] = {
            _TYPE_OF[kind]: member.check
            for member in members
            if member.check is not None
            for kind in member.kinds
        }
        if INT not in self.kinds and float in self._checks:
            self._checks[int] = self._checks[float]
        if self._checks:
            self.check = self._check

    def plain(self, value: Any) -> Any:
        kind = value.__class__
        if kind in self.as_is:
            return value
        found = self._by_class.get(kind, ())
        if len(found) == 1 and not isinstance(found[0], Choice):
            return found[0].plain(value)  # what it says is more than that it is none of all
        for member in found:
            try:
                return member.plain(value)
            except Unfit:
                pass
        raise self.unlike(value)

    def _check(self, plain: Any) -> None:
        check = self._checks.get(type(plain))
        if check is not None:
            check(plain)

    def explain(self, plain: Any, *, lenient: bool) -> None:
        nearest: Unfit | None = None
        is_others = type(plain) is int and INT in self.kinds
        for member in self.members:
            if is_others and _is_float(member):
                continue
            try:
                member.explain(plain, lenient=lenient)
            except Unfit as unfit:
                if unfit.steps or not unfit.clause or unfit.kind is ValueError:
                    nearest = unfit  # it is of the right kind, and something about it is wrong
            else:
                return
        raise self.wrong(plain) if nearest is None else nearest

    def parts(self) -> Iterable[Form]:
        return self.members


def _flat(members: Iterable[Form]) -> list[Form]:
    """Return the members, and those of the unions among them."""
    flat: list[Form] = []
    for member in members:
        flat += member.members if isinstance(member, Either) else [member]
    return flat


class Limited(Form):
    """A form with constraints around it. No union: see `limited`."""

    def __init__(self, form: Form, constraints: list[Constraint]) -> None:
        self.words = form.words
        self.name = form.name
        self.classes = form.classes
        self.as_is = form.as_is
        self.kinds = form.kinds
        self.subjects = form.subjects
        self.form = form
        self._constraints = constraints
        self.check = self._check

    def plain(self, value: Any) -> Any:
        return self.form.plain(value)

    def _check(self, plain: Any) -> None:
        if self.form.check is not None:
            self.form.check(plain)
        self._look(plain)

    def explain(self, plain: Any, *, lenient: bool) -> None:
        self.form.explain(plain, lenient=lenient)
        self._look(plain)

    def _look(self, plain: Any) -> None:
        for constraint in self._constraints:
            fault = constraint.fault(plain)
            if fault is not None:
                raise Unfit(fault, ValueError)

    def parts(self) -> Iterable[Form]:
        return (self.form,)


def limited(form: Form, constraints: list[Constraint]) -> Form:
    """Return a form with constraints around it; of a union each member has those about it."""
    if isinstance(form, Either):
        return Either([limited(member, constraints) for member in form.members])
    own = [constraint for constraint in constraints if constraint.subject in form.subjects]
    return Limited(form, own) if own else form


def unwrapped(form: Form) -> Form:
    """Return a form without the constraints around it."""
    while isinstance(form, Limited):
        form = form.form
    return form


def alike(first: Form, second: Form) -> set[str]:
    """Return the kinds of plain values by which two members of a union can't be told apart."""
    shared = set(first.kinds & second.kinds)
    if _is_verbatim(first) and _is_verbatim(second):
        return set()  # a text is that text, whichever of them it is
    return shared


def _is_float(form: Form) -> bool:
    return isinstance(unwrapped(form), Float)


def _is_verbatim(form: Form) -> bool:
    return isinstance(form, Scalar) or (isinstance(form, Choice) and form.is_verbatim)


# ---------------------------------------------------------------------------------------------
# Words


def unknown_name(owner: str, what: str, name: object, known: Iterable[str]) -> str:
    """Return the sentence for a name that is not known, with the nearest that is."""
    text = str(name)[:80]
    sentence = f"{owner} has no {what} `{text}`"
    import difflib  # noqa: PLC0415 - only a mistake needs it, `import ipcpoll` stays fast

    near = difflib.get_close_matches(text, sorted(known), n=1)
    return f"{sentence}; did you mean `{near[0]}`?" if near else sentence


def either(words: Iterable[str]) -> str:
    """Return words as a list with an "or"."""
    *some, last = dict.fromkeys(words)
    return f"{', '.join(some)} or {last}" if some else last


def versions_of(name: str) -> str:
    """Return what is to be thought of where the two ends do not agree on a class."""
    return f"the two sides may have different versions of {name}"


def _explain(form: Form, plain: Any, step: str, lenient: bool) -> None:
    try:
        form.explain(plain, lenient=lenient)
    except Unfit as unfit:
        unfit.within(step)
        raise


def _each(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    results: list[Any] = []
    try:
        results.extend(map(function, items))  # a loop in C, which keeps what it has
    except Unfit as unfit:
        unfit.within(f"[{len(results)}]")
        raise
    return results


def _hint(value: Any, classes: frozenset[type]) -> str:
    """Return what to give instead of a value of this class, or nothing."""
    kind = type(value)
    if kind in SCALARS or kind in (list, dict):
        return ""
    if kind.__module__.partition(".")[0] == "numpy":
        return "; give `.tolist()` of it" if hasattr(value, "__len__") else "; give `.item()` of it"
    if isinstance(value, Enum) and classes & {int, str}:
        return "; give its `.value`"
    if isinstance(value, bytearray | memoryview) and bytes in classes:
        return "; give `bytes(…)` of it"
    for base in kind.__mro__[1:]:
        if base in classes and base is not object:
            return f", which would arrive as a plain {base.__name__}; give that"
    if kind is tuple and classes & {list}:
        return "; give a list"
    return ""


_KIND_OF: Final[dict[Any, str]] = {
    type(None): NULL,
    bool: BOOL,
    int: INT,
    float: FLOAT,
    str: TEXT,
    bytes: BYTES,
}
_TYPE_OF: Final[dict[str, Any]] = {kind: plain for plain, kind in _KIND_OF.items()} | {
    ARRAY: list,
    MAP: dict,
}
_SUBJECTS: Final[dict[Any, tuple[str, ...]]] = {
    int: (NUMBER,),
    str: (LENGTH, PATTERN),
    bytes: (LENGTH,),
}
_PLAIN: Final[frozenset[type]] = SCALARS | {list, dict}
BARE: Final = Bare()
BARE_MAP: Final = Map(str, Scalar(str), BARE)
