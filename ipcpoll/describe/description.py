"""The description of one program, made step by step and kept as bytes. No I/O.

What is promised:

* Nothing is made before somebody asks. Then each step is about one class, so that a server can take
  one in each turn; whoever asks meanwhile waits for the same steps.
* What is kept is encoded: a later answer only joins what is there.
* One class that can't be described does not keep the others from being: its schemas are empty then,
  which says nothing of its values.
* The fingerprint has nothing of the process in it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from typing import Any, Final

from .._schema.annotations import return_annotation
from .._schema.answers import Kind, promise_of
from .._schema.commands import CommandType
from .._schema.declared import declared
from .._shown import encodable
from .._wire import codec
from .docs import doc_of
from .fingerprint import deterministic, fingerprint, load_hash
from .schema import Schema, Schemas

VERSION: Final = "0.1.0.dev0"
"""Of ipcpoll. As in pyproject.toml, which a test sees to."""

_ANYTHING: Final[Schema] = {}

_AROUND: Final = b"\x81\x81\xa1"
"""What stands around an entry while it is encoded alone: it is as deep then as in its message."""


class Description:
    """What one program says of itself."""

    def __init__(
        self,
        commands: Iterable[CommandType],
        program: Mapping[str, Any],
        variables: Mapping[str, Schema] = {},
        groups: Mapping[str, str] = {},
    ) -> None:
        self._commands = list(commands)
        self._variables = variables
        self._groups = groups
        self._steps: Generator[None] | None = None
        self._is_advancing = False
        self._begin = _pair("ipcpoll", VERSION) + _pair("program", program)
        self._sections = b""
        self._fingerprint = ""

    def advance(self) -> bool:
        """Take one step; return whether there is more to do."""
        if self._fingerprint:
            return False
        if self._is_advancing:  # a factory of the program's polls, and here is another who asks
            return True
        if self._steps is None:
            self._steps = self._make()
        self._is_advancing = True
        try:
            next(self._steps, None)
        except BaseException:  # what a class of the program raised: begin anew when asked again
            self._steps = None
            raise
        finally:
            self._is_advancing = False
        return not self._fingerprint

    def answer(self, known: str | None) -> bytes:
        """Return the description as one CBOR item; the short one for the known fingerprint."""
        end = _pair("fingerprint", self._fingerprint)
        if known == self._fingerprint:
            return codec.map_head(3) + self._begin + end
        return codec.map_head(7) + self._begin + self._sections + end

    def _make(self) -> Generator[None]:
        load_hash()
        yield
        schemas = Schemas()
        entries: dict[str, Schema] = {}
        for command in self._commands:
            entries[command.name] = _entry(command, schemas)
            yield
        while schemas.define_next():
            yield
        sections = {
            "commands": entries,
            "variables": dict(self._variables),
            "$defs": schemas.name_all(),
        }
        yield
        items: dict[str, bytes] = {}
        hashed: dict[str, dict[str, bytes]] = {}
        for name, section in sections.items():
            parts = [codec.encode(name), codec.map_head(len(section))]
            hashed[name] = {}
            for key, entry in section.items():
                item, hashed[name][key] = _encoded(key, entry)
                parts.append(item)
                yield
            items[name] = b"".join(parts)
        self._sections = (
            items["commands"] + items["variables"] + _pair("groups", self._groups) + items["$defs"]
        )
        self._fingerprint = fingerprint(hashed)


def _entry(command: CommandType, schemas: Schemas) -> Schema:
    """Return what is said of one command."""
    cls = command.cls
    annotation = return_annotation(cls)
    promise = promise_of(cls.process, annotation, "")  # type: ignore[attr-defined]
    piece = schemas.piece(promise.piece)
    said = declared(cls)
    return {
        "doc": doc_of(cls),
        "fields": schemas.fields(cls),
        "answer": schemas.answer(promise.answer),
        "piece": piece,
        "kind": _kind(command.kind, piece),
        "effect": said.effect,
        "errors": {encodable(code): doc_of(error) for code, error in said.errors.items()},
        "since": None if said.since is None else encodable(said.since),
        "deprecated": None if said.deprecated is None else encodable(said.deprecated),
        "hidden": said.hidden,
    }


def _kind(kind: Kind, piece: Schema | None) -> str:
    if kind is Kind.PLAIN:
        return "plain"
    return "later" if piece is None else "pieces"


def _encoded(key: str, entry: Schema) -> tuple[bytes, bytes]:
    """Return an entry behind its key, and without it in the deterministic encoding."""
    try:
        item = codec.encode([[{key: entry}]])
    except (TypeError, ValueError):  # nested too deeply
        entry = _without_schemas(entry)
        item = codec.encode([[{key: entry}]])
    return item[len(_AROUND) :], deterministic(entry)


def _without_schemas(entry: Schema) -> Schema:
    """Return what is left of an entry, of a command or of a class, that can't be carried."""
    if "kind" not in entry:
        return {name: entry[name] for name in ("title", "description") if name in entry}
    schemas = {name: _ANYTHING for name in ("fields", "answer", "piece") if entry[name] is not None}
    return entry | schemas


def _pair(key: str, value: Any) -> bytes:
    return codec.encode(key) + codec.encode(value)
