"""Balls that fall and bounce, changed from a shell while the frame rate is kept. Needs pygame-ce.

    $ python pygame_balls.py &
    $ python pygame_balls.py gravity -900      up, in pixels per second per second
    $ python pygame_balls.py balls 200
    $ python pygame_balls.py pause             and again: it goes on
    $ python pygame_balls.py                   a second one says that the first one runs

The game polls through the rest of each frame instead of sleeping it away, so a call is answered
within a fraction of a millisecond, and frames come when they would have come anyway.
"""

import os
import random
import time
from dataclasses import dataclass, field
from typing import Annotated

import shell
from msgspec import Meta

import ipcpoll
from ipcpoll.adapters import frame_loop

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


@dataclass
class World:
    """What the game draws, and the commands change."""

    balls: list[Ball] = field(default_factory=lambda: [Ball() for _ in range(30)])
    gravity: float = 600
    paused: bool = False
    running: bool = True
    frames: int = 0


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
class Quit:
    """End the game. It answers first."""

    def process(self, ctx: World) -> None:
        ctx.running = False


def play(address: str) -> None:
    with shell.needs("pip install pygame-ce"):
        import pygame  # noqa: PLC0415 (clients need none)

    world = World()
    with ipcpoll.Server(address, Gravity | Balls | Pause | Frames | Quit) as server:
        pygame.display.init()
        screen = pygame.display.set_mode((WIDTH, HEIGHT))
        pygame.display.set_caption("balls")
        print(f"serving at {server.address}", flush=True)
        frame_ends = time.monotonic()
        while world.running and not pygame.event.get(pygame.QUIT):
            pygame.event.clear()
            # The next frame ends one frame later; after a hitch it is not made up for.
            frame_ends = max(frame_ends, time.monotonic() - 0.1) + FRAME_SECONDS
            screen.fill((16, 20, 36))
            for ball in world.balls:
                if not world.paused:
                    ball.step(world.gravity)
                pygame.draw.circle(screen, ball.colour, (ball.x, ball.y), RADIUS)
            pygame.display.flip()
            world.frames += 1
            frame_loop.spend(server, world, frame_ends)
        pygame.quit()


def check() -> None:
    """Drive a game, and flood it: it must keep its frame rate."""
    for name, value in (("SDL_VIDEODRIVER", "dummy"), ("PYGAME_HIDE_SUPPORT_PROMPT", "1")):
        os.environ.setdefault(name, value)
    with shell.Processes(__file__) as games:
        game = games.start()
        assert shell.next_line(game) == f"serving at {games.address}\n"
        assert games.run("gravity", "-900") == "600.0\n"
        assert games.run("balls", "50") == "30\n"
        assert [games.run("pause"), games.run("pause")] == ["True\n", "False\n"]
        with ipcpoll.Client(games.address) as client:
            began, first = time.monotonic(), client.call(Frames())
            while time.monotonic() < began + 1.0:
                answers = list(client.map([Gravity(600)] * 500, depth=100))
                assert answers[1:] == [600.0] * 499
            rate = (client.call(Frames()) - first) / (time.monotonic() - began)
        print(f"{rate:.1f} frames per second under a flood")
        assert rate * FRAME_SECONDS > 0.9
        assert games.run("quit") == ""
        assert game.wait() == 0


if __name__ == "__main__":
    line = shell.CommandLine(__doc__, play, address="pygame-balls", check=check)
    line.add_commands(Gravity, Balls, Pause, Frames, Quit)
    line.main()
