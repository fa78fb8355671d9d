"""Make the pictures of the examples' windows: docs/tk_stage.png and its like for GTK and Qt.

It needs Xvfb, ImageMagick and the toolkits: on Debian `apt install xvfb imagemagick python3-tk
python3-gi-cairo gir1.2-gtk-4.0`; and `pip install PySide6-Essentials`. Run it with a Python that
sees them and ipcpoll.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DOCS = Path(__file__).resolve().parent
EXAMPLES = DOCS.parent / "examples"
WINDOWS = ("tk_stage", "gtk_stage", "qt_stage")
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
                take(name, folder / f"{name}.png")
        finally:
            xvfb.terminate()


def take(name: str, picture: Path) -> None:
    """Start a window, let a client draw the scene, and take a picture of the window."""
    with tempfile.TemporaryDirectory(prefix="stage-") as directory:
        address = f"{directory}/stage.sock"
        window = subprocess.Popen([sys.executable, EXAMPLES / f"{name}.py", "--address", address])
        try:
            deadline = time.monotonic() + PATIENCE
            while not os.path.exists(address) and time.monotonic() < deadline:
                time.sleep(0.05)
            client = [sys.executable, EXAMPLES / "stage.py", "--address", address, "scene"]
            subprocess.run(client, check=True)
            time.sleep(1)  # the window draws, and its lamp is bright
            command = ["import", "-window", "root", "-trim", "+repage", "-strip", "-colors", "128"]
            subprocess.run([*command, picture], check=True)
        finally:
            window.terminate()
            window.wait()


if __name__ == "__main__":
    main()
