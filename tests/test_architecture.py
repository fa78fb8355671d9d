"""The rooms of ipcpoll: which may import which, and that each module has tests of its name.

The rule in each room's docstring is held here.

``import`` inside a function or under ``TYPE_CHECKING`` counts as well: an arrow says what a module
knows, not when it learns it.
"""

import ast
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "ipcpoll"
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
PRIVATE = [room for room in ROOMS if room.startswith("_")]
OPERATORS = [room for room in ROOMS if room in ("describe", "cli")]
"""Rooms from which users import, and which have a rule all the same."""
RULED = [*PRIVATE, *OPERATORS]
MODULES = {
    "errors": set(),
    "limits": set(),
    "_shown": set(),
    "single_instance": {"errors", "limits", "_schema", "_server", "_client"},
    "programs": {"errors", "_wire", "_system", "_address", "_client"},
    "__main__": {"cli"},
    "testing": {"errors", "limits", *PRIVATE},
    "__init__": {"errors", "limits", "single_instance", "describe", *PRIVATE},
}
"""What has no rule of its own, and what it may import. For adapters see test_adapters_import."""

TESTED_IN = {
    "_attach/pollable": "attach/test_testing.py",
    "_attach/task_attachment": "attach/test_adapters.py",
    "_client/connection": "client/test_client.py",
    "_client/flow": "client/test_stream.py",
    "_schema/declared": "describe/test_declared_errors.py",
    "_schema/forms": "schema/test_faithful.py",
    "_schema/secrets": "describe/test_secrets.py",
    "_server/built_in": "describe/test_description.py",
    "_server/connection": "promises/test_never_blocks.py",
    "_server/running": "server/test_signal_handlers.py",
    "_server/scheduler": "promises/test_bounded_and_fair.py",
    "_server/turns": "server/test_nested_polls.py",
    "_server/work": "server/test_generators.py",
    "_system/processes": "cli/test_programs.py",
    "programs": "cli/test_programs.py",
    "__main__": "cli/test_main.py",
    "single_instance": "client/test_single_instance.py",
    "testing/commands": "attach/test_adapters.py",
    "testing/fakes": "attach/test_testing.py",
    "testing/late": "attach/test_conformance_bites.py",
    "testing/suite": "attach/test_conformance_bites.py",
}
"""The modules without a test file of their name, and the file that tests each. Every other module
``ipcpoll/_room/module.py`` is tested by ``tests/room/test_module.py``. Adapters are tested by what
test_adapters.py runs in each loop, the operator's rooms by what their users do."""

EXCEPTION = ("_server", "built_in.py", "describe")
"""The one arrow of the core to an operator's room: in a function, when somebody asks for it."""

WITHOUT_IO = ("_wire", "_schema", "describe", "errors", "limits", "_shown")
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


def rule(room: str) -> set[str]:
    """Return what a room may import, as its docstring says."""
    text = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text())) or ""
    [allowed] = re.findall(r"^May import: (.*)\.$", text, re.MULTILINE)
    return set(allowed.split(", "))


def modules(place: str) -> list[Path]:
    """Return the files of a room, or the one of a module."""
    return sorted((PACKAGE / place).rglob("*.py")) or [PACKAGE / f"{place}.py"]


def imports(source: str, package: str = "ipcpoll") -> Iterator[str]:
    """The modules that a source in this package imports, in full."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module, names, level):
                base = package.split(".")[: len(package.split(".")) + 1 - level] if level else []
                whole = ".".join([*base, *([module] if module else [])])
                yield whole
                yield from (f"{whole}.{alias.name}" for alias in names)


def imports_of(path: Path) -> set[str]:
    package = ".".join(["ipcpoll", *path.relative_to(PACKAGE).parts[:-1]])
    return set(imports(path.read_text(), package))


def places_imported_by(path: Path) -> set[str]:
    """Return the rooms and modules of ipcpoll that a file imports something of."""
    names = {name.split(".")[1] for name in imports_of(path) if name.startswith("ipcpoll.")}
    return names & {*ROOMS, *MODULES}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import os.path as p, select", {"os.path", "select"}),
        ("from . import codec", {"ipcpoll._wire", "ipcpoll._wire.codec"}),
        ("from .codec import encode", {"ipcpoll._wire.codec", "ipcpoll._wire.codec.encode"}),
        ("from ..errors import Busy", {"ipcpoll.errors", "ipcpoll.errors.Busy"}),
        ("from .. import _server", {"ipcpoll", "ipcpoll._server"}),
        ("from ipcpoll import adapters", {"ipcpoll", "ipcpoll.adapters"}),
        ("def f():\n    if x:\n        import time", {"time"}),
    ],
)
def test_every_form_of_import_is_seen(source: str, expected: set[str]) -> None:
    assert set(imports(source, "ipcpoll._wire")) == expected


def test_every_place_has_a_rule() -> None:
    """A new room says in its docstring what it may import; any other module has its line here."""
    found = {path.stem for path in PACKAGE.glob("*.py")} | {*ROOMS} - {"adapters"}
    assert found == {*RULED, *MODULES}
    assert all(rule(room) <= {*ROOMS, *MODULES} for room in RULED)


def file_that_tests(module: Path) -> Path:
    """Return the file that should test a module: that of its name, if nothing else is said."""
    relative = module.relative_to(PACKAGE).with_suffix("")
    named = relative.parent / f"test_{relative.name.lstrip('_')}.py"
    return TESTS / TESTED_IN.get(relative.as_posix(), str(named).lstrip("_"))


def test_every_module_has_tests_that_are_found_by_its_name() -> None:
    found = [path for place in (*PRIVATE, *MODULES) for path in modules(place)]
    found = [path for path in found if path.name != "__init__.py"]
    assert len(found) > 50
    without = {
        f"{path}: {file_that_tests(path)}" for path in found if not file_that_tests(path).is_file()
    }
    assert without == set(), "name a test file after each, or list it in TESTED_IN"


def test_list_of_what_is_tested_elsewhere_is_short_and_true() -> None:
    for module in TESTED_IN:
        path = PACKAGE / f"{module}.py"
        assert path.is_file(), f"{module} has gone"
        named = path.relative_to(PACKAGE).parent / f"test_{path.stem}.py"
        assert not (TESTS / str(named).lstrip("_")).is_file(), f"{module} has a file of its own"


@pytest.mark.parametrize("room", PRIVATE)
def test_room_is_its_rule_and_nothing_else(room: str) -> None:
    [docstring] = ast.parse((PACKAGE / room / "__init__.py").read_text()).body
    assert isinstance(docstring, ast.Expr)
    assert "\nNever: " in (ast.get_docstring(ast.parse(ast.unparse(docstring))) or "")


@pytest.mark.parametrize("room", OPERATORS)
def test_rule_of_a_public_room_says_what_it_never_does(room: str) -> None:
    tree = ast.parse((PACKAGE / room / "__init__.py").read_text())
    assert "\nNever: " in (ast.get_docstring(tree) or "")


@pytest.mark.parametrize("place", [*RULED, *MODULES])
def test_arrows_between_rooms(place: str) -> None:
    allowed = rule(place) if place in RULED else MODULES[place]
    for path in modules(place):
        more = places_imported_by(path) - allowed - {place}
        if (place, path.name) == EXCEPTION[:2]:
            assert more == {EXCEPTION[2]}
            continue
        assert not more, f"{path.name} may not import {more}"


def test_exception_is_in_a_function() -> None:
    room, name, other = EXCEPTION
    body = ast.parse((PACKAGE / room / name).read_text()).body
    loaded = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert loaded
    assert not [node for node in loaded if other in ast.unparse(node)]


@pytest.mark.parametrize("place", RULED)
def test_no_circle_in_a_room(place: str) -> None:
    names = {path.stem: path for path in modules(place)}
    arrows = {
        name: {other for other in names if f"ipcpoll.{place}.{other}" in imports_of(path)}
        for name, path in names.items()
    }
    assert list(graphlib.TopologicalSorter(arrows).static_order())


@pytest.mark.parametrize("place", WITHOUT_IO)
def test_what_is_without_io_imports_none(place: str) -> None:
    for path in modules(place):
        assert not {name.partition(".")[0] for name in imports_of(path)} & IMPURE, path
