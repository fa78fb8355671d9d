"""One part for a moment, in a process of its own: what `make test` runs of it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from part import Figures

HERE = Path(__file__).resolve().parent


def for_a_moment(part: str, seconds: float, *, patience: float = 240.0) -> Figures:
    """Run a part for so many seconds; return its figures, or raise what went wrong."""
    with tempfile.TemporaryDirectory(prefix="ipcpoll-") as directory:
        file = Path(directory, "figures.json")
        command = [sys.executable, "-W", "error", str(HERE / f"{part}.py")]
        command += ["--seconds", str(seconds), "--json", str(file)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=patience, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        figures: Figures = json.loads(file.read_text())
    return figures
