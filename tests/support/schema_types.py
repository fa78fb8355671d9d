"""Types that the tests of `_schema` share, with examples of their values, and a command's way."""

import enum
from dataclasses import dataclass, field
from pathlib import Path
from typing import (
    Annotated,
    NamedTuple,
    NotRequired,
    Required,
    TypedDict,
    TypeVar,
)

from hypothesis import strategies as st
from msgspec import Meta
from wire import command

from ipcpoll._schema.commands import resolve
from ipcpoll._wire.codec import Decoder, encode

DECODER = Decoder()
NULL_ID = encode(None)


def other(name):
    """Return what is said where the two ends do not agree on a class."""
    return f"; the two sides may have different versions of {name}"


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mode(enum.StrEnum):
    FAST = "fast"


@dataclass
class Point:
    x: int
    y: int = 0


@dataclass(kw_only=True)
class Tree:
    """Recursive."""

    name: str
    left: "Tree | None" = None
    more: "list[Tree]" = field(default_factory=list)


class Pair(NamedTuple):
    key: str
    value: Point
    weight: float = 1.0


class Options(TypedDict, total=False):
    colour: Required[Colour]
    point: Point
    path: Path


class Profile(TypedDict):
    name: str
    nick: NotRequired[str]


class Folder(TypedDict):
    """Recursive."""

    folders: "list[Folder]"


Percent = Annotated[int, Meta(ge=0, le=100, description="of the whole")]
Word = Annotated[str, Meta(min_length=1, max_length=8, pattern="^[a-z]*$")]
T = TypeVar("T")


def bound(cls, payload):
    """Return the command that the payload of a call makes on the server."""
    message = DECODER.decode(payload)
    assert message[1] == cls.__name__
    return resolve(cls).bind(message[2])


def there_and_back(annotation, value):
    """Return a value after its way to the server as a field and back as the answer."""
    cls = command(annotation, annotation)
    command_type = resolve(cls)
    arrived = bound(cls, command_type.encode_call(NULL_ID, cls(value))).x
    item = command_type.encode_answer(arrived)
    return command_type.decode_answer(DECODER.decode(item))


INTS = st.integers(-(2**63), 2**64 - 1)
WORDS = st.text(max_size=8)
PATHS = st.lists(st.sampled_from(["a", "..", "b c", "é"])).map(lambda parts: Path("/", *parts))
POINTS = st.builds(Point, INTS, INTS)
TREES = st.recursive(
    st.builds(Tree, name=WORDS),
    lambda inner: st.builds(
        Tree, name=WORDS, left=st.none() | inner, more=st.lists(inner, max_size=2)
    ),
    max_leaves=4,
)


@dataclass
class Found:
    point: Point


@dataclass
class Lost:
    why: str = "it rained"


@dataclass
class Unlike(Found):
    """Neither `Found` nor `Lost`, though it has the fields."""


SELF = []
SELF.append(SELF)


class Text(str):
    __slots__ = ()
