"""The conformance suite of `ipcpoll.testing` in every loop, each loop in processes of its own.

Loops don't like each other (two GTKs, two reactors), and a loop that crashes must not take the
tests along. So ``tests/attach/case_*.py`` are run by processes, and each case of each column is a
test here. At the end of the run the table of loops and cases is printed; docs/adapters.md keeps it.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import conformance_table
import pytest
from harness import ROOT
from loops import installed, need, qt_needs, screen

from ipcpoll.testing import AdapterConformance

CASES = AdapterConformance.cases()


class Column(NamedTuple):
    """One loop in the table."""

    title: str
    module: str
    cls: str
    needs: tuple[tuple[str, str], ...] = ()
    """Modules and libraries, each with the command that installs it."""
    everywhere: bool = True
    """Whether every Python of CI must have them, or only the system's."""
    display: bool = False
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def process(self) -> tuple[str, tuple[tuple[str, str], ...], bool]:
        """What `outcomes` runs; columns may share it."""
        return self.module, self.environment, self.display


TWISTED = ("twisted", "pip install twisted")


def twisted(reactor: str, *needs: tuple[str, str], everywhere: bool = True) -> Column:
    """Return the column of one reactor: a process has one for life."""
    environment = (("IPCPOLL_REACTOR", reactor),)
    return Column(
        f"Twisted: {reactor}",
        "case_twisted",
        "TestTwisted",
        needs=(TWISTED, *needs),
        everywhere=everywhere,
        environment=environment,
    )


TRIO = (("trio", "pip install trio"), ("greenlet", "pip install greenlet"))
ANYIO = (("anyio", "pip install anyio"), *TRIO)


def qt(binding: str, platform: str) -> Column:
    """Return the column of one binding of Qt: a process has one for life."""
    return Column(
        f"{binding}: {platform}",
        "case_qt",
        "TestQt",
        needs=qt_needs(binding, platform),
        everywhere=False,
        display=platform == "xcb",
        environment=(("IPCPOLL_QT", binding), ("QT_QPA_PLATFORM", platform)),
    )


TK = (("_tkinter", "apt-get install python3-tk"),)
GI = (("gi", "apt-get install python3-gi"),)
GTK3 = (
    ("gi", "apt-get install python3-gi"),
    ("gi._gi_cairo", "apt-get install python3-gi-cairo gir1.2-gtk-3.0"),
)
GTK4 = (
    ("gi", "apt-get install python3-gi"),
    ("gi._gi_cairo", "apt-get install python3-gi-cairo gir1.2-gtk-4.0"),
)

COLUMNS = [
    Column("selectors: epoll", "case_select", "TestEpoll"),
    Column("selectors: poll", "case_select", "TestPoll"),
    Column("selectors: select", "case_select", "TestSelect"),
    Column("asyncio", "case_asyncio", "TestAsyncio"),
    Column("uvloop", "case_uvloop", "TestUvloop", needs=(("uvloop", "pip install uvloop"),)),
    twisted("epoll"),
    twisted("poll"),
    twisted("select"),
    twisted("asyncio"),
    twisted("gi", ("gi", "apt-get install python3-gi"), everywhere=False),
    Column("trio", "case_trio", "TestTrio", TRIO),
    Column("anyio: asyncio", "case_anyio", "TestAnyioOnAsyncio", ANYIO),
    Column("anyio: trio", "case_anyio", "TestAnyioOnTrio", ANYIO),
    Column("Tk", "case_tk", "TestTk", TK, display=True),
    Column("GLib", "case_glib", "TestGLib", GI, everywhere=False),
    Column("GLib: a context of its own", "case_glib", "TestGLibContext", GI, everywhere=False),
    Column("GTK 3", "case_gtk3", "TestGtk3", GTK3, everywhere=False, display=True),
    Column("GTK 4", "case_gtk4", "TestGtk4", GTK4, everywhere=False, display=True),
    *(qt(binding, where) for binding in ("PySide6", "PyQt6") for where in ("offscreen", "xcb")),
]


# They differ from another column in code that no CPython brings.
ONCE = ("Twisted: epoll", "Twisted: poll", "Twisted: select", "PySide6: xcb", "PyQt6: xcb")
PARAMETERS = [
    pytest.param(column, id=column.title, marks=[pytest.mark.once] if column.title in ONCE else [])
    for column in COLUMNS
]


Outcomes = tuple[dict[tuple[str, str], str], str]
"""What became of each test, by its class and its name; and what was printed."""
_running: dict[tuple[object, ...], Future[Outcomes]] = {}


@pytest.fixture(scope="module", autouse=True)
def columns_in_advance(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run the columns that are chosen, two at a time: most of the time they wait."""
    parameters = [getattr(item, "callspec", None) for item in request.session.items]
    chosen = {one.params.get("column") for one in parameters if one is not None}
    with ThreadPoolExecutor(2) as pool:
        for column in COLUMNS:
            there = all(installed(name) for name, _ in column.needs)
            if column in chosen and there and column.process not in _running:
                _running[column.process] = pool.submit(outcomes, *column.process)
        yield
        pool.shutdown(cancel_futures=True)
    _running.clear()


@functools.cache
def outcomes(module: str, environment: tuple[tuple[str, str], ...], with_display: bool) -> Outcomes:
    """Run a module of cases in a process; return each test's outcome, and what was printed."""
    tests = ROOT / "tests"
    variables = {**os.environ, **dict(environment)}
    # Cases import one another.
    variables["PYTHONPATH"] = f"{ROOT}:{tests / 'support'}:{tests / 'attach'}"
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/attach/{module}.py"]
    if "coverage" in sys.modules and sys.modules["coverage"].Coverage.current() is not None:
        command = ["-m", "coverage", "run", "--parallel-mode", *command]
    with (
        tempfile.NamedTemporaryFile(suffix=".xml") as report,
        screen() if with_display else nullcontext("") as variables["DISPLAY"],
    ):
        done = subprocess.run(
            [sys.executable, *command, f"--junitxml={report.name}"],
            cwd=ROOT,
            env=variables,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        printed = done.stdout + done.stderr
        text = Path(report.name).read_text()
    found: dict[tuple[str, str], str] = {}
    for case in ElementTree.fromstring(text).iter("testcase") if text else []:
        problem = next((child for child in case if child.tag in ("failure", "error")), None)
        skipped = case.find("skipped")
        if problem is not None:
            outcome = problem.text or "failed"
        elif skipped is not None:
            outcome = f"skipped: {skipped.get('message')}"
        else:
            outcome = "passed"
        found[case.get("classname", "").rpartition(".")[2], case.get("name", "")] = outcome
    return found, printed


def of(column: Column) -> Outcomes:
    for name, install in column.needs:
        need(name, install, everywhere=column.everywhere)
    return _running[column.process].result()


def applies_not(outcome: str) -> bool:
    """Return whether the loop has not what the case is about, and says so."""
    return outcome.startswith("skipped: does not apply")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("column", PARAMETERS)
def test_conformance(
    column: Column, case: str, record_property: Callable[[str, object], None]
) -> None:
    record_property("cell", (column.title, case))  # conftest.py prints the table of them
    found, printed = of(column)
    outcome = found.get((column.cls, case), f"it was not run:\n{printed}")
    if applies_not(outcome):
        record_property("applies", False)
    else:
        assert outcome == "passed", outcome


@pytest.mark.parametrize("column", PARAMETERS)
def test_other_cases_of_the_loop(column: Column) -> None:
    """What a loop's own module tests beside the suite."""
    found, printed = of(column)
    assert found, printed
    for (cls, name), outcome in found.items():
        assert applies_not(outcome) or outcome == "passed", f"{cls}.{name}: {outcome}"


# ---------------------------------------------------------------------------------------------
# The table


def test_document_keeps_the_table() -> None:
    """Each loop and each case of the code, and nothing that did not pass."""
    head, *rows = conformance_table.kept()
    again = "python tests/attach/table.py --write"
    assert head == ["case", *(column.title for column in COLUMNS)], again
    assert [row[0] for row in rows] == [conformance_table.sentence(case) for case in CASES], again
    good = {conformance_table.PASSED, conformance_table.APPLIES_NOT}
    assert {cell for row in rows for cell in row[1:]} <= good


def test_table_of_what_was_found() -> None:
    marks = {
        ("one", "test_a_b"): conformance_table.mark("passed"),
        ("two", "test_a_b"): conformance_table.mark("skipped: does not apply: no"),
        ("one", "test_c"): conformance_table.mark("AssertionError"),
    }
    assert conformance_table.lines(["one", "two"], ["test_a_b", "test_c"], marks) == [
        "| case | one    | two     |",
        "| ---- | ------ | ------- |",
        "| a b  | yes    | n/a     |",
        "| c    | FAILED | skipped |",
    ]
