"""Who may import whom in ipcpoll: the arrows of CONTRIBUTING.md, one line for each module.

``import`` inside a function or under ``TYPE_CHECKING`` counts as well: an arrow says what a module
knows, not when it learns it.
"""

import ast
import graphlib
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ipcpoll"

# Without I/O, from the bottom up.
PURE: dict[str, set[str]] = {
    "errors": set(),
    "limits": set(),
    "command": set(),
    "pollable": set(),
    "states": set(),
    "framing": {"errors", "limits"},
    "diagnosis": {"errors", "limits"},
    "codec": {"errors", "limits", "diagnosis"},
    "strictness": {"errors", "limits", "codec"},
    "constraints": set(),
    "forms": {"constraints", "diagnosis"},
    "annotations": {"constraints", "forms"},
    "answers": {"annotations"},
    "specialized": {"codec", "forms"},
    "schema": {
        "errors",
        "codec",
        "command",
        "constraints",
        "forms",
        "annotations",
        "answers",
        "specialized",
    },
    "messages": {"errors", "framing", "codec", "constraints", "forms"},
    "protocol": {"errors", "limits", "states", "framing", "codec", "messages"},
}
# The parts of a server and a client. They may know each other, but not in a circle.
PARTS = {
    "acceptor",
    "address",
    "attachment",
    "calls",
    "channel",
    "clients",
    "connecting",
    "connection",
    "descriptors",
    "directory",
    "door",
    "elsewhere",
    "flow",
    "forks",
    "late",
    "line",
    "listener",
    "lockfile",
    "log",
    "oneself",
    "peer",
    "pipeline",
    "polled",
    "poller",
    "pump",
    "reading",
    "reasons",
    "round",
    "running",
    "topic",
    "turns",
    "stream",
    "submitted",
    "task_attachment",
    "wakeup",
    "work",
}
ENDS = {"server", "client"}

ALLOWED: dict[str, set[str]] = {
    **PURE,
    **{part: {*PURE, *PARTS} - {part} for part in PARTS},
    **{end: {*PURE, *PARTS} for end in ENDS},
    "awaited": {*PURE, *PARTS, "client"},
    "single_instance": {*PURE, *PARTS, *ENDS},
    "testing_late": {*PURE, *PARTS, *ENDS},
    "testing": {*PURE, *PARTS, *ENDS, "testing_late"},
    "__init__": {*PURE, *PARTS, *ENDS, "awaited", "single_instance"},
}

# What a module without I/O never imports.
IMPURE = {
    "_socket",
    "_thread",
    "asyncio",
    "concurrent",
    "fcntl",
    "multiprocessing",
    "os",
    "posix",
    "select",
    "selectors",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "threading",
    "time",
}
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))


def imports(source: str) -> Iterator[str]:
    """The modules that this source imports, without their parts; ipcpoll's own begin with a dot."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names):
                modules = [alias.name for alias in names]
            case ast.ImportFrom(None, names, level):
                modules = ["." * level + alias.name for alias in names]
            case ast.ImportFrom("ipcpoll", names, 0):
                modules = [f"ipcpoll.{alias.name}" for alias in names]
            case ast.ImportFrom(str(module), _, level):
                modules = ["." * level + module]
            case _:
                continue
        for module in modules:
            own = module.startswith(".") or f"{module}.".startswith("ipcpoll.")
            if own:
                yield "." + module.removeprefix("ipcpoll").lstrip(".").partition(".")[0]
            else:
                yield module.partition(".")[0]


def imports_of(module: str) -> set[str]:
    return set(imports((PACKAGE / f"{module}.py").read_text()))


def own_imports_of(module: str) -> set[str]:
    return {name[1:] for name in imports_of(module) if name.startswith(".")}


def pure_modules() -> list[str]:
    """The list in pyproject.toml, which the floor of the coverage uses too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    names: list[str] = project["tool"]["ipcpoll"]["sans-io"]
    return names


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import os.path as p, select", {"os", "select"}),
        ("from os.path import join", {"os"}),
        ("from . import codec, errors", {".codec", ".errors"}),
        ("from .errors import Busy", {".errors"}),
        ("from .adapters.tk_loop import attach", {".adapters"}),
        ("from .. import adapters", {".adapters"}),
        ("import ipcpoll", {"."}),
        ("import ipcpoll.errors", {".errors"}),
        ("from ipcpoll import server", {".server"}),
        ("from ipcpoll.adapters import tk_loop", {".adapters"}),
        ("import ipcpoll_extra", {"ipcpoll_extra"}),
        ("def f():\n    if x:\n        import time", {"time"}),
    ],
)
def test_every_form_of_import_is_seen(source: str, expected: set[str]) -> None:
    assert set(imports(source)) == expected


def test_table_names_each_module() -> None:
    """A new module gets its line, a deleted one loses it."""
    assert set(MODULES) == set(ALLOWED)


def test_list_of_modules_without_io() -> None:
    assert sorted(pure_modules()) == sorted(PURE)


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_only_what_it_may(module: str) -> None:
    assert own_imports_of(module) - ALLOWED[module] == set()


def test_arrows_make_no_circle() -> None:
    arrows = {module: own_imports_of(module) for module in MODULES}
    assert list(graphlib.TopologicalSorter(arrows).static_order())


@pytest.mark.parametrize("module", pure_modules())
def test_module_without_io_imports_none(module: str) -> None:
    assert imports_of(module) & IMPURE == set()
