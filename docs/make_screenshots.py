"""Make the pictures of the examples' windows: tk_stage.png, gtk_stage.png and tk_monitor.png.

It needs Xvfb, ImageMagick, pygame-ce and the toolkits: on Debian `apt install xvfb imagemagick
python3-tk python3-gi-cairo gir1.2-gtk-4.0`. Run it with a Python that sees them and ipcpoll.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

DOCS = Path(__file__).resolve().parent
EXAMPLES = DOCS.parent / "examples"
WINDOWS = ("tk_stage", "gtk_stage")
PATIENCE = 30.0  # seconds; only a failure waits so long


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", default=DOCS, type=Path, help="default: docs")
    folder: Path = parser.parse_args().folder
    read, write = os.pipe()
    size = "800x600x24"
    with subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", size, "-nolisten", "tcp"],
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    ) as xvfb:
        os.close(write)
        try:
            with open(read) as answer:
                os.environ["DISPLAY"] = ":" + answer.readline().strip()
            for name in WINDOWS:
                take_stage(name, folder / f"{name}.png")
            take_monitor(folder / "tk_monitor.png")
        finally:
            xvfb.terminate()


def take_stage(name: str, picture: Path) -> None:
    """Start a window, let a client draw the scene, and take a picture of the window."""
    with tempfile.TemporaryDirectory(prefix="stage-") as directory:
        address = f"{directory}/stage.sock"
        with started(name, address):
            wait_for(address)
            subprocess.run(command("stage", address, "scene"), check=True)
            time.sleep(1)  # the window draws, and its lamp is bright
            take(picture)


def take_monitor(picture: Path) -> None:
    """Start a monitor, and a game, and another game."""
    os.environ["SDL_VIDEODRIVER"] = "dummy"
    with tempfile.TemporaryDirectory(prefix="balls-") as directory:
        address = f"{directory}/balls.sock"
        with started("tk_monitor", address):
            for game in range(2):
                with started("pygame_balls", address):
                    wait_for(address)
                    time.sleep(4.5)
                    if game == 1:
                        take(picture)
                    subprocess.run(command("pygame_balls", address, "quit"), check=True)


def command(name: str, address: str, *verb: str) -> list[str]:
    return [sys.executable, str(EXAMPLES / f"{name}.py"), "--address", address, *verb]


@contextmanager
def started(name: str, address: str) -> Generator[None]:
    process = subprocess.Popen(command(name, address))
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def wait_for(address: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not os.path.exists(address) and time.monotonic() < deadline:
        time.sleep(0.05)


def take(picture: Path) -> None:
    options = ["-window", "root", "-trim", "+repage", "-strip", "-colors", "128"]
    subprocess.run(["import", *options, picture], check=True)


if __name__ == "__main__":
    main()
