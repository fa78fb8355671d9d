"""Take the pictures of docs/gallery.md: run the commands that stand above each, in the examples.

And tk_monitor.png, for which two games run one after the other.

It needs Xvfb, ImageMagick and the toolkits: on Debian `apt install xvfb imagemagick python3-tk
python3-gi-cairo gir1.2-gtk-4.0`; and `pip install PySide6-Essentials pygame-ce matplotlib pyglet
arcade kivy`. Run it with a Python that sees them and ipcpoll.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

DOCS = Path(__file__).resolve().parent
EXAMPLES = DOCS.parent / "examples"
PATIENCE = 30.0  # seconds; only a failure waits so long
DRAW_SECONDS = 1.0
MONITOR = "tk_monitor.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--folder", default=DOCS, type=Path, help="where to put them; default: docs"
    )
    parser.add_argument("pictures", nargs="*", help="only these; default: all")
    arguments = parser.parse_args()
    read, write = os.pipe()
    options = ["-displayfd", str(write), "-screen", "0", "1024x768x24", "-nolisten", "tcp"]
    with subprocess.Popen(
        ["Xvfb", *options, "-noreset"], pass_fds=[write], stderr=subprocess.DEVNULL
    ) as xvfb:
        os.close(write)
        try:
            with open(read) as answer:
                os.environ["DISPLAY"] = ":" + answer.readline().strip()
            # Some windows are black, and all that has the colour of the corner is cut off.
            subprocess.run(["display", "-window", "root", "xc:#808080"], check=False)  # exits 1
            for picture, commands in gallery():
                if picture in (arguments.pictures or [picture]):
                    take(arguments.folder / picture, commands)
            if MONITOR in (arguments.pictures or [MONITOR]):
                take_monitor(arguments.folder / MONITOR)
        finally:
            xvfb.terminate()


def gallery() -> Iterator[tuple[str, list[str]]]:
    """Yield each picture of the page, and the commands above it."""
    text = (DOCS / "gallery.md").read_text(encoding="utf-8")
    for block, picture in re.findall(r"```console\n(.*?)```\n\n!\[.*?\]\((.*?)\)", text, re.DOTALL):
        yield picture, re.findall(r"^\$ python (.*)$", block, re.MULTILINE)


def take(picture: Path, commands: list[str]) -> None:
    """Run the commands, and take a picture of the only window."""
    with tempfile.TemporaryDirectory(prefix="gallery-") as directory, ExitStack() as stack:
        os.environ["XDG_RUNTIME_DIR"] = os.environ["KIVY_HOME"] = directory
        os.environ["KIVY_NO_CONSOLELOG"] = "1"  # it tells much
        for command in commands:
            words = [sys.executable, *shlex.split(command.removesuffix("&"))]
            if not command.endswith("&"):
                subprocess.run(words, check=True, cwd=EXAMPLES, stdout=subprocess.DEVNULL)
                continue
            window = stack.enter_context(subprocess.Popen(words, cwd=EXAMPLES))
            stack.callback(window.terminate)
            wait_for_a_server(directory)
        time.sleep(DRAW_SECONDS)
        shoot(picture)


def take_monitor(picture: Path) -> None:
    """Let the window plot one game, which ends, and then another one."""
    game = [sys.executable, "pygame_balls.py"]
    with tempfile.TemporaryDirectory(prefix="gallery-") as directory:
        os.environ["XDG_RUNTIME_DIR"] = directory
        with subprocess.Popen([sys.executable, "tk_monitor.py"], cwd=EXAMPLES) as monitor:
            for last in (False, True):
                hidden = os.environ | {"SDL_VIDEODRIVER": "dummy"}
                with subprocess.Popen(game, cwd=EXAMPLES, env=hidden):
                    wait_for_a_server(directory)
                    time.sleep(4.5)
                    if last:
                        shoot(picture)
                    subprocess.run([*game, "quit"], check=True, cwd=EXAMPLES)
            monitor.terminate()


def wait_for_a_server(directory: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not list(Path(directory).glob("ipcpoll/*.sock")) and time.monotonic() < deadline:
        time.sleep(0.05)


def shoot(picture: Path) -> None:
    options = ["-window", "root", "-trim", "+repage", "-strip", "-colors", "128"]
    subprocess.run(["import", *options, picture], check=True)
    print(f"{picture.name}: {picture.stat().st_size} bytes")


if __name__ == "__main__":
    main()
