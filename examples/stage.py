"""A stage that other processes decorate: its commands, and a client for the shell.

    $ tk_stage.py &                                     a window; or gtk_stage.py, qt_stage.py
    $ stage.py paint "#203040"
    $ stage.py caption "hello from another process"
    $ stage.py circle 320 120 60 "#ffcc33"              x, y and size in pixels
    $ stage.py scene                                    a whole picture, shape by shape

`tk_stage.py`, `gtk_stage.py` and `qt_stage.py` show the same stage, each with its own toolkit.
"""

import argparse
import dataclasses
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta

import ipcpoll

WIDTH, HEIGHT = 640, 400
MOST_SHAPES = 1000

# What else is sent is refused before a command runs.
Colour = Annotated[str, Meta(pattern=r"^#[0-9a-f]{6}\Z")]
Text = Annotated[str, Meta(max_length=60)]
X = Annotated[int, Meta(ge=0, le=WIDTH)]
Y = Annotated[int, Meta(ge=0, le=HEIGHT)]
Size = Annotated[int, Meta(ge=1, le=WIDTH)]


@dataclass
class Stage:
    """What the window shows. It draws when `version` has changed."""

    colour: str = "#181c28"
    caption: str = "an empty stage"
    shapes: "list[Circle | Box]" = field(default_factory=list)
    version: int = 0

    def add(self, shape: "Circle | Box") -> int:
        if len(self.shapes) == MOST_SHAPES:
            raise ipcpoll.CommandError("full", f"the stage holds {MOST_SHAPES} shapes")
        self.shapes.append(shape)
        self.version += 1
        return len(self.shapes)


@dataclass
class Description:
    """What `Describe` answers."""

    colour: str
    caption: str
    shapes: int


@dataclass
class Paint:
    """Paint the whole stage, behind its shapes."""

    colour: Colour

    def process(self, ctx: Stage) -> None:
        ctx.colour = self.colour
        ctx.version += 1


@dataclass
class Caption:
    """Say something below."""

    text: Text

    def process(self, ctx: Stage) -> None:
        ctx.caption = self.text
        ctx.version += 1


@dataclass
class Circle:
    """Add a circle around a point; the answer is how many shapes there are."""

    x: X
    y: Y
    size: Size
    colour: Colour

    def process(self, ctx: Stage) -> int:
        return ctx.add(self)


@dataclass
class Box:
    """Add a square around a point; the answer is how many shapes there are."""

    x: X
    y: Y
    size: Size
    colour: Colour

    def process(self, ctx: Stage) -> int:
        return ctx.add(self)


@dataclass
class Clear:
    """Remove all shapes."""

    def process(self, ctx: Stage) -> None:
        ctx.shapes.clear()
        ctx.version += 1


@dataclass
class Describe:
    """Answer what is shown."""

    def process(self, ctx: Stage) -> Description:
        return Description(ctx.colour, ctx.caption, len(ctx.shapes))


Command = Paint | Caption | Circle | Box | Clear | Describe


def scene() -> Iterator[Command]:
    """Yield the commands that draw a village in the evening."""
    yield Clear()
    yield Paint("#2b2350")
    for size, colour in ((300, "#4a2f63"), (230, "#7d3f6b"), (160, "#c75b63"), (96, "#ffb454")):
        yield Circle(430, 250, size, colour)
    for star in range(26):
        yield Circle(17 + star * 97 % 610, 12 + star * 59 % 110, 2 + star % 3, "#fff3d0")
    for x, size, colour in ((90, 330, "#3a2a58"), (300, 280, "#34254f"), (560, 360, "#2e2147")):
        yield Circle(x, 400, size, colour)
    for x, y, size in ((130, 300, 52), (196, 312, 40), (262, 290, 64), (500, 296, 56)):
        yield Box(x, y, size, "#17122b")
        for pane in range(4):
            dx, dy = (pane % 2 * 2 - 1) * size // 5, (pane // 2 * 2 - 1) * size // 5
            yield Box(x + dx, y + dy, size // 6, "#ffd873" if (pane + x) % 3 else "#3d3354")
    yield Caption("drawn by another process")


# ---------------------------------------------------------------------------------------------
# What the windows need


def window_arguments(description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--address", default="stage", help="a name, or a path with a slash")
    parser.add_argument(
        "--check", action="store_true", help="let a client draw the scene, compare, and end"
    )
    return parser.parse_args()


@contextmanager
def checking(address: str) -> Generator[subprocess.Popen[bytes]]:
    """Run a client process that draws the scene."""
    client = subprocess.Popen([sys.executable, __file__, "--address", address, "scene"])
    try:
        yield client
    finally:
        client.kill()
        client.wait()


@contextmanager
def serving(arguments: argparse.Namespace) -> Generator[ipcpoll.Server[Stage]]:
    """Serve at the address, a private one for the check."""
    with tempfile.TemporaryDirectory(prefix="stage-") as directory:
        address = f"{directory}/stage.sock" if arguments.check else arguments.address
        with ipcpoll.Server(address, Command) as server:
            yield server


def lamp(seconds: float) -> int:
    """Return how bright the lamp in the corner is, 0 to 255: it shows that the window is fluid."""
    return 255 - abs(int(seconds * 256) % 511 - 255)


def shows_the_scene(stage: Stage) -> bool:
    wanted = Stage()
    for command in scene():
        command.process(wanted)
    return dataclasses.replace(stage, version=0) == dataclasses.replace(wanted, version=0)


# ---------------------------------------------------------------------------------------------
# The client


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--address", default="stage", help="a name, or a path with a slash")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("scene", help="Draw a village in the evening.")
    classes: dict[str, type[Command]] = {}
    for cls in (Paint, Caption, Circle, Box, Clear, Describe):
        name = cls.__name__.lower()
        classes[name] = cls
        verb = verbs.add_parser(name, help=cls.__doc__, description=cls.__doc__)
        for each in dataclasses.fields(cls):
            number = each.name in ("x", "y", "size")
            verb.add_argument(each.name, type=int if number else str)
    options = vars(parser.parse_args())
    address, verb = options.pop("address"), options.pop("verb")
    answer: object = None
    commands = scene() if verb == "scene" else [classes[verb](**options)]
    try:
        with ipcpoll.Client(address) as client:
            for command in commands:
                answer = client.call(command)
    except (ipcpoll.IpcError, OSError, ValueError) as error:
        print(f"stage.py: {error}", file=sys.stderr)
        return 1
    if verb != "scene" and answer is not None:
        print(answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
