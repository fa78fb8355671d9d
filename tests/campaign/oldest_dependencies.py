"""The suite with the oldest releases that pyproject.toml allows.

`make oldest` runs all tests with them; this leaves out those of the loops. It makes
``.venv-oldest`` beside the other environments. How long it takes is not to be chosen: the suite
runs once.

    python tests/campaign/oldest_dependencies.py
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))

import environments
from part import Figures, run_as_program


def campaign(seconds: float) -> Figures:
    """Run the suite once."""
    floors = environments.floors()
    python = environments.make(".venv-oldest", "oldest-3.11")
    found = {name: environments.version(python, name) for name in floors}
    assert found == floors, found
    return {**found, **environments.run_suite(python)}


if __name__ == "__main__":
    run_as_program(campaign, about=__doc__)
