"""What an adapter imports: its own loop and public names of ipcpoll. And who imports an adapter."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from documents import read
from harness import ROOT
from loops import need

import ipcpoll

FOLDER = ROOT / "adapters"
ADAPTERS = sorted(path.stem for path in FOLDER.glob("*_loop.py"))
MOST_LINES = 130

# Each adapter's loop: the modules that hold it. The standard library has select and asyncio.
LOOPS = {
    "anyio_loop": {"anyio"},
    "asyncio_loop": {"asyncio"},
    "frame_loop": {"select"},
    "glib_loop": {"gi"},
    "qt_loop": set(),  # it takes what the program has imported
    "select_loop": {"select", "selectors"},
    "tk_loop": {"tkinter"},
    "trio_loop": {"trio"},
    "twisted_loop": {"twisted", "zope"},
}
# What is no loop, and may be imported anywhere.
COMMON = {
    "__future__",
    "collections",
    "contextlib",
    "errno",
    "fcntl",
    "functools",
    "math",
    "os",
    "sys",
    "time",
    "typing",
    "weakref",
}


def parse(name: str) -> ast.Module:
    return ast.parse((FOLDER / f"{name}.py").read_text())


def imported(tree: ast.Module) -> dict[str, set[str]]:
    """Return the modules that are imported anywhere in it, each with the names taken from it."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found.setdefault(alias.name, set())
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            found.setdefault(module, set()).update(alias.name for alias in node.names)
    return found


def problems(tree: ast.Module, loops: set[str]) -> list[str]:
    """Return what an adapter of these loops may not import."""
    found = []
    for module, names in imported(tree).items():
        if module == "ipcpoll":
            found += [f"ipcpoll.{name}" for name in names - set(ipcpoll.__all__)]
        elif module.partition(".")[0] not in COMMON | loops:
            found.append(module)
    return sorted(found)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import selectors\nfrom ipcpoll import Attachment", []),
        ("from ipcpoll import Attachment, _server", ["ipcpoll._server"]),
        ("from ipcpoll._attach.attachment import Attachment", ["ipcpoll._attach.attachment"]),
        ("from .select_loop import run", [".select_loop"]),
        ("from . import select_loop", ["."]),
        ("def f():\n    import tkinter.ttk", ["tkinter.ttk"]),
    ],
)
def test_forbidden_import_is_seen(source: str, expected: list[str]) -> None:
    assert problems(ast.parse(source), LOOPS["select_loop"]) == expected


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapter_imports_its_loop_and_public_names(name: str) -> None:
    assert name in LOOPS, "name its loop's modules here"
    assert problems(parse(name), LOOPS[name]) == []


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapter_is_short(name: str) -> None:
    assert len((FOLDER / f"{name}.py").read_text().splitlines()) < MOST_LINES


def test_folder_holds_adapters_and_nothing_else() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.py")) == sorted([*ADAPTERS, "__init__"])
    assert imported(parse("__init__")) == {}


def isolated(source: str) -> str:
    """Run Python as a stranger does: no PYTHONPATH, no current directory; return what it prints."""
    prelude = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    done = subprocess.run(
        # PyGObject's importer is of an old kind, which Python mentions as the first thing.
        [sys.executable, "-W", "error", "-W", "ignore::ImportWarning", "-Ic", prelude + source],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path("/"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_ipcpoll_imports_no_adapter() -> None:
    """Its folder is seen twice in the tree, and has one name in a program: ipcpoll.adapters."""
    source = "import ipcpoll, ipcpoll.testing\n"
    source += "print(*(name for name in sys.modules if 'adapters' in name.split('.')))"
    assert isolated(source) == "\n"


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapter_alone(name: str) -> None:
    """Importing one brings no other, and not `adapters` under a name of its own."""
    for module in LOOPS[name]:
        need(module, everywhere=name not in {"glib_loop"})
    source = f"import ipcpoll.adapters.{name}\n"
    source += "print(*sorted(name for name in sys.modules if 'adapters' in name.split('.')[:2]))"
    assert isolated(source).split() == ["ipcpoll.adapters", f"ipcpoll.adapters.{name}"]


def functions(tree: ast.Module) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name: node for node in tree.body if isinstance(node, kinds)}


def test_adapter_for_qt_loads_no_binding() -> None:
    """Which one is the program's choice, and two in one process break."""
    source = "import ipcpoll, ipcpoll.testing as t, ipcpoll.adapters.qt_loop as q\n"
    source += "try: q.attach(t.FakePollable(), None)\n"
    source += "except ipcpoll.UsageError as error: print(error)\n"
    source += (
        "print(*(name for name in sys.modules if name.startswith(('PySide', 'PyQt', 'qtpy'))))"
    )
    assert isolated(source) == "import PySide6 or PyQt6 before attach(): no Qt is loaded\n\n"


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapter_says_what_it_is(name: str) -> None:
    """A docstring with an example, and one verb: `attach`, or a name of its own."""
    tree = parse(name)
    assert "::" in (ast.get_docstring(tree) or "")
    public = {function for function in functions(tree) if not function.startswith("_")}
    assert public <= {"attach", "run", "serve", "spend"}
    assert public


@pytest.mark.parametrize("name", ADAPTERS)
def test_document_has_a_row_for_the_adapter(name: str) -> None:
    """With the call as it is: its first arguments in their order."""
    rows = [line for line in read("docs/adapters.md").splitlines() if f"| `{name}` |" in line]
    found = functions(parse(name))
    for row in rows:
        call = ast.parse(row.split("|")[3].strip(" `"), mode="eval").body
        assert isinstance(call, ast.Call)
        assert isinstance(call.func, ast.Name)
        taken = found[call.func.id].args
        names = [argument.arg for argument in taken.args + taken.kwonlyargs]
        given = [argument.id for argument in call.args if isinstance(argument, ast.Name)]
        assert given[0] == "server"
        assert given[1:] == names[1 : len(given)]
        assert {keyword.arg for keyword in call.keywords} <= set(names)
    assert rows
