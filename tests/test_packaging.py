"""The layout, and what an import of ipcpoll brings into a process."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]

# Loops and toolkits, and what only they need. A program that imports ipcpoll has its own.
LOOPS = {
    "anyio",
    "asyncio",
    "curses",
    "dbus",
    "eventlet",
    "gevent",
    "gi",
    "kivy",
    "multiprocessing",
    "panda3d",
    "prompt_toolkit",
    "pygame",
    "pyglet",
    "PyQt5",
    "PyQt6",
    "PySide2",
    "PySide6",
    "qtpy",
    "sched",
    "ssl",
    "tkinter",
    "tornado",
    "trio",
    "twisted",
    "urwid",
    "uvloop",
    "wx",
    "zmq",
}


def modules_after(statement: str) -> set[str]:
    """The modules that this statement brings into a fresh process which sees the tree first."""
    program = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
before = set(sys.modules)
{statement}
assert ipcpoll.__file__ == {str(ROOT / "ipcpoll" / "__init__.py")!r}, ipcpoll.__file__
print(*sorted(set(sys.modules) - before))
"""
    command = [sys.executable, "-I", "-c", program]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


def test_import_of_ipcpoll_brings_no_loop() -> None:
    modules = modules_after("import ipcpoll")
    assert "ipcpoll" in modules
    assert {name.partition(".")[0] for name in modules} & LOOPS == set()


def test_import_of_ipcpoll_brings_no_adapter() -> None:
    modules = modules_after("import ipcpoll")
    assert {name for name in modules if "adapters" in name} == set()


def test_adapters_have_one_name() -> None:
    modules = modules_after("import ipcpoll.adapters")
    assert {name for name in modules if "adapters" in name} == {"ipcpoll.adapters"}


@pytest.mark.skipif((ROOT / "PKG-INFO").exists(), reason="an sdist carries no link")
def test_link_to_adapters() -> None:
    assert os.readlink(ROOT / "ipcpoll" / "adapters") == "../adapters"


def test_adapters_package_is_a_docstring() -> None:
    source = (ROOT / "adapters" / "__init__.py").read_text()
    [statement] = ast.parse(source).body
    assert isinstance(statement, ast.Expr)
    assert isinstance(statement.value, ast.Constant)
    assert isinstance(statement.value.value, str)
