"""Balls that fall and bounce, changed from a shell while the frame rate is kept. Needs pygame-ce.

    $ python pygame_balls.py &
    $ python pygame_balls.py gravity -900      up, in pixels per second per second
    $ python pygame_balls.py balls 200
    $ python pygame_balls.py pause             and again: it goes on
    $ python pygame_balls.py search            a long job, with a progress bar
    $ python pygame_balls.py                   a second one says that the first one runs

The game polls through the rest of each frame instead of sleeping it away, so a call is answered
within a fraction of a millisecond, and frames come when they would have come anyway. The long job
is a generator, which works in slices of about that time; others are served between them.
"""

import os
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

import shell
from balls import (
    FRAME_SECONDS,
    HEIGHT,
    RADIUS,
    WIDTH,
    Balls,
    Command,
    Frames,
    Gravity,
    Pause,
    Progress,
    Quit,
    Search,
    Watch,
    World,
)

import ipcpoll
from ipcpoll.adapters import frame_loop

BAR = 40  # characters


def play(address: str) -> None:
    with shell.needs("pip install pygame-ce"):
        import pygame  # noqa: PLC0415 (clients need none)

    world = World()
    with ipcpoll.Server(address, Command) as server:
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
            world.step()
            for ball in world.balls:
                pygame.draw.circle(screen, ball.colour, (ball.x, ball.y), RADIUS)
            pygame.display.flip()
            frame_loop.spend(server, world, frame_ends)
        pygame.quit()


def show_bar(progress: Progress) -> None:
    """Draw how far it is, over what was drawn before; not into a file."""
    if sys.stderr.isatty():
        full = BAR * progress.done // progress.of
        end = "\n" if progress.done == progress.of else ""
        bar = f"\r[{'#' * full}{'.' * (BAR - full)}] {100 * progress.done // progress.of} %"
        print(bar, end=end, file=sys.stderr, flush=True)


def show_no_window() -> None:
    for name, value in (("SDL_VIDEODRIVER", "dummy"), ("PYGAME_HIDE_SUPPORT_PROMPT", "1")):
        os.environ.setdefault(name, value)


def check() -> None:
    """Drive a game, flood it and let it search: it must keep its frame rate."""
    show_no_window()
    with shell.Processes(__file__) as games:
        game = games.start()
        assert shell.next_line(game) == f"serving at {games.address}\n"
        assert games.run("gravity", "-900") == "600.0\n"
        assert games.run("balls", "50") == "30\n"
        assert [games.run("pause"), games.run("pause")] == ["True\n", "False\n"]
        with ipcpoll.Client(games.address) as client:
            with frame_rate(client, "under a flood"):
                ends = time.monotonic() + 1.0
                while time.monotonic() < ends:
                    answers = list(client.map([Gravity(600)] * 500, depth=100))
                    assert answers[1:] == [600.0] * 499
            with frame_rate(client, "while it searches"):
                check_search(client, games.address)
        assert int(games.run("search", "3")) in (200, 800, 1400)
        assert games.run("quit") == ""
        assert game.wait() == 0


@contextmanager
def frame_rate(client: ipcpoll.Client, when: str) -> Generator[None]:
    """Measure it from here to the end."""
    began, first = time.monotonic(), client.call(Frames())
    yield
    rate = (client.call(Frames()) - first) / (time.monotonic() - began)
    print(f"{rate:.1f} frames per second {when}")
    assert rate * FRAME_SECONDS > 0.9


def check_search(other: ipcpoll.Client, address: str) -> None:
    """Its pieces come in order, and between two of them another client is answered often."""
    came: list[Progress] = []
    calls = 0
    with ipcpoll.Client(address) as client:
        end = client.stream(Search(60)).each(came.append)
        while not end.done():
            client.poll()
            other.call(Frames())
            calls += 1
        assert 200 <= end.result() < 2000
    assert came == [Progress(done, 60) for done in range(61)]
    print(f"{calls} calls answered meanwhile")
    assert calls > 3 * len(came)


if __name__ == "__main__":
    line = shell.CommandLine(__doc__, play, address="pygame-balls", check=check)
    line.add_commands(Gravity, Balls, Pause, Frames, Quit)
    line.add_commands(Search, show=show_bar, timeout=None)
    line.add_commands(Watch, show=shell.say, timeout=None)
    line.main()
