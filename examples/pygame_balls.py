"""Balls that fall and bounce, changed from a shell while the frame rate is kept. Needs pygame-ce.

    $ pygame_balls.py &
    $ pygame_balls.py gravity -900      up, in pixels per second per second
    $ pygame_balls.py balls 200
    $ pygame_balls.py pause             and again: it goes on
    $ pygame_balls.py                   what a second one does: it says that the first one runs

The game polls through the rest of each frame instead of sleeping it away, so a call is answered
within a fraction of a millisecond, and frames come when they would have come anyway.
"""

import argparse
import importlib
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from typing import Annotated, get_type_hints

from msgspec import Meta

import ipcpoll
from ipcpoll.adapters import frame_loop

FRAMES_PER_SECOND = 60
WIDTH, HEIGHT, RADIUS = 480, 320, 12


@dataclass
class Ball:
    """Place and speed, in pixels and pixels per second."""

    x: float
    y: float
    right: float
    down: float
    colour: tuple[int, int, int]


def new_ball() -> Ball:
    colour = (random.randint(80, 255), random.randint(80, 255), random.randint(80, 255))
    x, y = random.uniform(RADIUS, WIDTH - RADIUS), random.uniform(RADIUS, HEIGHT / 2)
    return Ball(x, y, random.uniform(-150, 150), 0, colour)


@dataclass
class World:
    """What the game draws, and the commands change."""

    balls: list[Ball] = field(default_factory=lambda: [new_ball() for _ in range(30)])
    gravity: float = 600
    paused: bool = False
    running: bool = True
    frames: int = 0

    def step(self, seconds: float) -> None:
        for ball in self.balls if not self.paused else []:
            ball.down += self.gravity * seconds
            ball.x += ball.right * seconds
            ball.y += ball.down * seconds
            if not RADIUS <= ball.x <= WIDTH - RADIUS:
                ball.x, ball.right = min(max(ball.x, RADIUS), WIDTH - RADIUS), -ball.right
            if not RADIUS <= ball.y <= HEIGHT - RADIUS:
                ball.y, ball.down = min(max(ball.y, RADIUS), HEIGHT - RADIUS), -0.9 * ball.down


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
        ctx.balls = ctx.balls[: self.number]
        ctx.balls += [new_ball() for _ in range(self.number - before)]
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
            frame_ends = max(frame_ends, time.monotonic() - 0.1) + 1 / FRAMES_PER_SECOND
            world.step(1 / FRAMES_PER_SECOND)
            screen.fill((16, 20, 36))
            for ball in world.balls:
                pygame.draw.circle(screen, ball.colour, (ball.x, ball.y), RADIUS)
            pygame.display.flip()
            world.frames += 1
            frame_loop.spend(server, world, frame_ends)
        pygame.quit()


def check() -> None:
    """Drive a game as a shell would, and flood it; each answer and the frame rate looked at."""
    os.environ["PYGAME_HIDE_SUPPORT_PROMPT"] = "1"
    importlib.import_module("pygame")  # if it is missing, that is said here, not by the game

    with tempfile.TemporaryDirectory(prefix="ipcpoll-") as directory:
        address = f"{directory}/balls.sock"
        program = [sys.executable, __file__, "--address", address]
        quiet = {"SDL_VIDEODRIVER": "dummy", **os.environ}

        def run(*words: str) -> str:
            return subprocess.run([*program, *words], stdout=-1, text=True, check=True).stdout

        with subprocess.Popen(program, env=quiet, stdout=subprocess.PIPE) as game:
            try:
                assert game.stdout is not None
                assert game.stdout.readline().startswith(b"serving at ")
                assert run("gravity", "-900") == "600.0\n"
                assert run("balls", "50") == "30\n"
                assert [run("pause"), run("pause")] == ["True\n", "False\n"]
                with ipcpoll.Client(address) as client:
                    began, first = time.monotonic(), client.call(Frames())
                    while time.monotonic() < began + 1.0:
                        assert (
                            list(client.map([Gravity(600)] * 500, depth=100))[1:] == [600.0] * 499
                        )
                    rate = (client.call(Frames()) - first) / (time.monotonic() - began)
                assert rate > 0.9 * FRAMES_PER_SECOND, rate
                assert run("quit") == "None\n"
                assert game.wait(10) == 0
            finally:
                game.terminate()
    print(f"pygame_balls.py: checked; {rate:.1f} frames per second under a flood")


def main() -> int:
    parser = argparse.ArgumentParser(description="Balls that other processes change.")
    parser.add_argument("--address", default="pygame-balls", help="a name, or a path with a slash")
    parser.add_argument("--check", action="store_true", help="start a game, drive it, and end it")
    verbs = parser.add_subparsers(metavar="gravity N | balls N | pause | frames | quit")
    for cls in (Gravity, Balls, Pause, Frames, Quit):
        verb = verbs.add_parser(cls.__name__.lower(), help=cls.__doc__, description=cls.__doc__)
        verb.set_defaults(command=cls)
        for name, kind in get_type_hints(cls).items():
            verb.add_argument("words", nargs=1, type=kind, metavar=name)
    arguments = parser.parse_args()
    try:
        if arguments.check:
            check()
        elif "command" in arguments:
            command = arguments.command(*getattr(arguments, "words", []))
            print(ipcpoll.send(command, arguments.address))
        else:
            play(arguments.address)
    except KeyboardInterrupt:
        return 130
    except ModuleNotFoundError as error:
        print(f"pygame_balls.py: {error}; pip install pygame-ce would help", file=sys.stderr)
        return 1
    except (ipcpoll.IpcError, OSError) as error:
        print(f"pygame_balls.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
