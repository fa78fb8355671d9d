"""The soak finds a broken library: each way of soak_breaks.py, by the words that belong to it."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from part import Figures, run_as_program
from soak import Clients, soak
from soak_breaks import BREAKS

SECONDS = 2.0  # of a soak
PATIENCE = "3"  # seconds for an answer: one that is lost should be missed soon


def campaign(seconds: float) -> Figures:
    """Break the library in one way after the other, as many as the time allows but at least two."""
    os.environ["IPCPOLL_PATIENCE"] = PATIENCE
    deadline = time.monotonic() + seconds
    found: list[str] = []
    for each in BREAKS:
        if len(found) >= 2 and time.monotonic() > deadline:
            break
        name = each.do.__name__
        said = "nothing"
        try:
            with Clients() as clients:
                soak("select", SECONDS, clients, broken=name)
        except AssertionError as error:
            said = str(error)
        assert re.search(each.words, said), f"{name}: the soak found {said}"
        found.append(name.replace("_", " "))
    return {"ways to break it, all found": len(found), "which": ", ".join(found)}


if __name__ == "__main__":
    run_as_program(campaign, about=__doc__)
