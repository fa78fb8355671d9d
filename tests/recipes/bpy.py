"""What a recipe needs of Blender, which is too big for a test: `bpy.app.timers`, and quitting.

It keeps what Blender's documentation says of timers: a function is called in the main loop after
`first_interval` seconds, then again after as many as it returns; None, or an exception, which is
printed, ends it. It may be registered for good (`persistent`); opening a file ends the others.
`run` is the main loop, which Blender has of its own: it runs timers, and sleeps.
"""

from __future__ import annotations

import runpy
import sys
import time
import traceback
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

Function = Callable[[], float | None]

_due: dict[Function, float] = {}
_quits: list[bool] = []


def _register(function: Function, *, first_interval: float = 0, persistent: bool = False) -> None:
    _due[function] = time.monotonic() + first_interval


def _unregister(function: Function) -> None:
    if function not in _due:
        raise ValueError("Error: function is not registered")
    del _due[function]


def _call(function: Function) -> None:
    try:
        seconds = function()
    except Exception:
        traceback.print_exc()
        seconds = None
    if seconds is None:
        _due.pop(function, None)
    elif function in _due:
        _due[function] = time.monotonic() + seconds


app: Any = SimpleNamespace(
    timers=SimpleNamespace(
        register=_register, unregister=_unregister, is_registered=lambda one: one in _due
    )
)
ops: Any = SimpleNamespace(wm=SimpleNamespace(quit_blender=lambda: _quits.append(True)))


def run(addon: str) -> None:
    """Enable an add-on, run the main loop until somebody quits, and disable the add-on, twice."""
    names = runpy.run_path(addon)
    names["register"]()
    while not _quits:
        now = time.monotonic()
        for function in [one for one, due in _due.items() if due <= now]:
            _call(function)
        time.sleep(max(0, min(_due.values(), default=now + 1) - time.monotonic()))
    names["unregister"]()
    names["register"]()
    names["unregister"]()


if __name__ == "__main__":
    sys.modules["bpy"] = sys.modules["__main__"]  # one Blender, though the add-on imports it
    run(sys.argv[1])
