"""What the parts of the campaign share: a number of seconds, figures, one command line.

A part is a program of its own, so that what it leaks, or ends with, is its own too:

    python tests/campaign/races.py --seconds 600 --json races.json

Its function runs for about that long, or until a complete enumeration is through, and returns
what it counted. It raises, AssertionError as a rule, when a promise was broken; a part that has no
figures has not passed. The same function with a few seconds is what `make test` runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Never, TypeAlias

Figures: TypeAlias = "dict[str, int | float | str]"
"""What was counted or measured: a short name with its unit, and the figure."""


def run_as_program(part: Callable[[float], Figures], *, about: str | None) -> Never:
    """Run a part as the command line says, print its figures and end the process."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--seconds", type=float, default=60.0, help="about how long (default: 60)")
    parser.add_argument("--json", type=Path, help="write the figures into this file as well")
    arguments = parser.parse_args()
    began = time.monotonic()
    figures = part(arguments.seconds)
    assert figures, "a part without figures proves nothing"
    figures["seconds"] = round(time.monotonic() - began, 1)
    for name, figure in figures.items():
        print(f"{name}: {figure}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    sys.exit(0)
