"""A stage that other processes decorate: its commands, and a client for the shell.

    $ python tk_stage.py &                                 a window; or gtk_stage.py …
    $ python stage.py paint "#203040"
    $ python stage.py caption "hello from another process"
    $ python stage.py circle 320 120 60 "#ffcc33"          x, y and size in pixels
    $ python stage.py scene                                a whole picture, shape by shape

`tk_stage.py`, `gtk_stage.py`, `qt_stage.py` and `wx_stage.py` show the same stage, each with its
own toolkit.
"""

import time
from dataclasses import dataclass, field
from typing import Annotated

import shell
from msgspec import Meta

import ipcpoll

WIDTH, HEIGHT = 640, 400
MOST_SHAPES = 1000

# What else is sent is refused before a command runs.
Colour = Annotated[str, Meta(pattern=r"^#[0-9a-fA-F]{6}\Z")]
Text = Annotated[str, Meta(max_length=60)]
X = Annotated[int, Meta(ge=0, le=WIDTH)]
Y = Annotated[int, Meta(ge=0, le=HEIGHT)]
Size = Annotated[int, Meta(ge=1, le=WIDTH)]


@dataclass
class Stage:
    """What the window shows. It draws when `version` has changed."""

    colour: str = "#181c28"
    caption: str = "an empty stage"
    shapes: "list[Shape]" = field(default_factory=list)
    version: int = 0


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
class Shape:
    """What stands on the stage, around a point."""

    x: X
    y: Y
    size: Size
    colour: Colour

    def process(self, ctx: Stage) -> int:
        if len(ctx.shapes) == MOST_SHAPES:
            raise ipcpoll.CommandError("full", f"the stage holds {MOST_SHAPES} shapes")
        ctx.shapes.append(self)
        ctx.version += 1
        return len(ctx.shapes)


@dataclass
class Circle(Shape):
    """Add a circle around a point; the answer is how many shapes there are."""


@dataclass
class Box(Shape):
    """Add a square around a point; the answer is how many shapes there are."""


@dataclass
class Clear:
    """Remove all shapes."""

    def process(self, ctx: Stage) -> None:
        ctx.shapes.clear()
        ctx.version += 1


@dataclass
class Description:
    """What `Describe` answers."""

    colour: str
    caption: str
    shapes: int


@dataclass
class Describe:
    """Answer what is shown."""

    def process(self, ctx: Stage) -> Description:
        return Description(ctx.colour, ctx.caption, len(ctx.shapes))


Command = Paint | Caption | Circle | Box | Clear | Describe


def lamp() -> str:
    """Return the colour of the lamp in the corner, which shows that a window is fluid."""
    bright = 255 - abs(int(time.monotonic() * 256) % 511 - 255)
    return f"#{bright:02x}{bright:02x}40"


def until_next_frame(milliseconds: int) -> int:
    """Return how long to wait for the next frame: they come at fixed moments.

    So one that comes late, as the loop was serving somebody, does not delay those after it.
    """
    return milliseconds - int(time.monotonic() * 1000) % milliseconds


if __name__ == "__main__":
    import village  # which imports this module

    line = shell.CommandLine(__doc__, address="stage", check=village.check)
    line.add_commands(Paint, Caption, Circle, Box, Clear, Describe)
    line.add_verb("scene", village.__doc__, village.draw)
    line.main()
