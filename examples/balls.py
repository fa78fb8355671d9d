"""The balls of pygame_balls.py, without a window: what they do, and the commands."""

import copy
import random
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Annotated

from msgspec import Meta

import ipcpoll

FRAME_SECONDS = 1 / 60
WIDTH, HEIGHT, RADIUS = 480, 320, 12


class Ball:
    """Place and speed, in pixels and pixels per second."""

    def __init__(self) -> None:
        self.x, self.y = random.uniform(RADIUS, WIDTH - RADIUS), random.uniform(RADIUS, HEIGHT / 2)
        self.right, self.down = random.uniform(-150, 150), 0.0
        self.colour = [random.randint(80, 255) for _ in "rgb"]

    def step(self, gravity: float) -> None:
        self.down += gravity * FRAME_SECONDS
        self.x += self.right * FRAME_SECONDS
        self.y += self.down * FRAME_SECONDS
        if not RADIUS <= self.x <= WIDTH - RADIUS:
            self.x, self.right = min(max(self.x, RADIUS), WIDTH - RADIUS), -self.right
        if not RADIUS <= self.y <= HEIGHT - RADIUS:
            self.y, self.down = min(max(self.y, RADIUS), HEIGHT - RADIUS), -0.9 * self.down

    @property
    def height(self) -> float:
        """How far above the floor it is."""
        return HEIGHT - RADIUS - self.y


@dataclass
class World:
    """What the game draws, and the commands change."""

    balls: list[Ball] = field(default_factory=lambda: [Ball() for _ in range(30)])
    gravity: float = 600
    paused: bool = False
    running: bool = True
    frames: int = 0
    heights: ipcpoll.Topic[float] = field(default_factory=ipcpoll.Topic[float])

    def step(self) -> None:
        """One frame goes by."""
        for ball in self.balls if not self.paused else []:
            ball.step(self.gravity)
        self.heights.publish(sum(ball.height for ball in self.balls) / max(1, len(self.balls)))
        self.frames += 1


@dataclass
class Gravity:
    """Change the gravity; answer what it was."""

    pixels: Annotated[float, Meta(ge=-100_000, le=100_000)]  # no nan: the balls would be gone

    def process(self, ctx: World) -> float:
        before, ctx.gravity = ctx.gravity, self.pixels
        return before


@dataclass
class Balls:
    """Let there be so many balls; answer how many there were."""

    number: int

    def process(self, ctx: World) -> int:
        if not 0 <= self.number <= 1000:
            raise ipcpoll.CommandError("out-of-range", "0 to 1000 balls")
        before = len(ctx.balls)
        ctx.balls = ctx.balls[: self.number] + [Ball() for _ in range(self.number - before)]
        return before


@dataclass
class Pause:
    """Stop the balls, or let them go on; answer whether they stand now."""

    def process(self, ctx: World) -> bool:
        ctx.paused = not ctx.paused
        return ctx.paused


@dataclass
class Frames:
    """Answer how many frames were drawn."""

    def process(self, ctx: World) -> int:
        return ctx.frames


@dataclass
class Watch:
    """Give the mean height of the balls, in pixels, frame by frame."""

    def process(self, ctx: World) -> ipcpoll.Subscription[float]:
        return ctx.heights.subscribe()


@dataclass
class Progress:
    """How far a long job is."""

    done: int
    of: int


@dataclass
class Search:
    """Try gravities on copies of the balls; answer which leaves them highest 10 seconds later."""

    tries: Annotated[int, Meta(ge=1, le=100_000)] = 200

    def process(self, ctx: World) -> Generator[Progress | ipcpoll.Turn, None, int]:
        balls = [copy.copy(ball) for ball in ctx.balls]  # those of the game go on meanwhile
        heights: dict[int, float] = {}
        for done in range(self.tries):
            yield Progress(done, self.tries)
            gravity = 200 + 1800 * done // self.tries
            heights[gravity] = 0
            for ball in map(copy.copy, balls):
                for _ in range(5):
                    for _ in range(120):  # frames, in a tenth of a millisecond or so
                        ball.step(gravity)
                    yield ipcpoll.Turn()  # the others have theirs
                heights[gravity] += ball.height
        yield Progress(self.tries, self.tries)
        return max(heights, key=heights.__getitem__)


@dataclass
class Quit:
    """End the game. It answers first."""

    def process(self, ctx: World) -> None:
        ctx.running = False


Command = Gravity | Balls | Pause | Frames | Watch | Search | Quit
