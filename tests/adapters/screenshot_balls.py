"""Make docs/pygame_balls.png: the game on an X server without a screen. Needs ImageMagick."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import ROOT, wait_until
from loops import screen

import ipcpoll

PICTURE = ROOT / "docs" / "pygame_balls.png"


def main() -> None:
    sys.path.insert(0, str(ROOT / "examples"))
    from balls import Balls, Frames, Pause, Quit

    with tempfile.TemporaryDirectory(prefix="ipcpoll-") as directory, screen() as display:
        address = f"{directory}/balls.sock"
        environment = {**os.environ, "DISPLAY": display, "SDL_VIDEODRIVER": "x11"}
        program = [sys.executable, str(ROOT / "examples" / "pygame_balls.py")]
        with subprocess.Popen([*program, "--address", address], env=environment) as game:
            wait_until(lambda: os.path.exists(address) or game.poll() is not None)
            with ipcpoll.Client(address) as client:
                client.call(Balls(60))
                wait_until(lambda: client.call(Frames()) >= 22)
                client.call(Pause())
                seen = client.call(Frames())
                wait_until(lambda: client.call(Frames()) > seen + 1)
                take = ["import", "-window", "root", "-trim", "+repage", "-colors", "128"]
                subprocess.run([*take, str(PICTURE)], env=environment, check=True)
                client.call(Quit())
    print(f"{PICTURE}: {PICTURE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
