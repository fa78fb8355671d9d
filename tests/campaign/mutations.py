"""Mutation testing of framing, codec and protocol: would their tests notice a small wrong change?

Each mutant (`mutants.py` makes them) is tried in a forked process of its own, in which the changed
source is imported in the place of the module's: nothing is ever written. There the tests that run
the changed line are run, quickest first, until one fails: then the mutant is killed. A test that
takes much more CPU time than it does without a mutant has noticed too.

A survivor is a hole in the tests, or the change changes nothing that is promised. Those are in
`explained_mutants.toml`, each with its reason; all others are printed, in that file's form. The
score counts every mutant, the explained ones too.

    python tests/campaign/mutations.py --seconds 3600

In less time it tries a part of them, chosen by chance but always the same.

mutmut 3.8.1 and cosmic-ray 8.7.0 were tried first. mutmut wraps each function, which a test of the
traceback's depth notices, and leaves alone what is outside functions. cosmic-ray starts pytest
anew for each of its 1,595 mutants: some seconds each before the first test runs.
"""

from __future__ import annotations

import gc
import importlib.abc
import importlib.util
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import coverage
import hypothesis
import pytest

# Imported here, so that no forked process has to.
import _pytest.assertion.rewrite  # noqa: F401  # isort: skip
import cbor2  # noqa: F401  # isort: skip
import msgspec  # noqa: F401  # isort: skip

ROOT: Final = Path(__file__).resolve().parent.parent.parent
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from mutants import Mutant, mutants  # noqa: E402
from part import Figures, run_as_program  # noqa: E402

ROOM: Final = ROOT / "ipcpoll" / "_wire"
MODULES: Final = ("framing", "codec", "messages", "protocol")
TESTS: Final = (
    *(f"tests/wire/test_{name}.py" for name in ("framing", "codec", "strictness", "protocol")),
    "tests/schema/test_codegen.py",
)
EXPLAINED: Final = Path(__file__).with_name("explained_mutants.toml")
LEAST_SCORE: Final = 90.0
"""Percent of all mutants that must be killed."""

MOST_MEMORY: Final = 4 << 30
PATIENCE: Final = 600
"""Seconds of real time after which a process that uses no CPU is given up."""

_SLACK: Final = 2.0
"""CPU seconds that a test may take longer, beside five times what it takes without a mutant."""

SURVIVED, KILLED = 0, 1


class Baseline(NamedTuple):
    """What is known of the tests without a mutant."""

    seconds: dict[str, float]
    """CPU time of each test that passes, by its id."""
    lines: dict[str, dict[int, set[str]]]
    """By module and line the tests that run it; those of an import are named ``""``."""
    cpu_of_importing: float
    """CPU seconds of all that is not a test."""

    def of(self, module: str, mutant: Mutant) -> dict[str, list[str]]:
        """Return the tests that may notice, quickest first, by their file: the module's own first.

        Of an import's lines that is every test.
        """
        running: set[str] = set()
        for line in range(mutant.first, mutant.last + 1):
            running |= self.lines[module].get(line, set())
        tests = sorted(self.seconds if "" in running else running, key=self.seconds.__getitem__)
        by_file = {
            file: [test for test in tests if test.startswith(f"{file}::")]
            for file in sorted(TESTS, key=f"tests/wire/test_{module}.py".__ne__)
        }
        return {file: tests for file, tests in by_file.items() if tests}


# ---------------------------------------------------------------------------------------------
# In the forked process


class _Replaced(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a source that is in no file."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self.name = name
        self.path = path
        self.source = source

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        return importlib.util.spec_from_loader(name, self) if name == self.name else None

    def exec_module(self, module: Any) -> None:
        exec(compile(self.source, str(self.path), "exec"), module.__dict__)


class _Chosen:
    """Runs the chosen tests in the given order, each within its CPU time."""

    def __init__(self, tests: list[str], seconds: dict[str, float]) -> None:
        self.tests = tests
        self.seconds = seconds

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        order = {name: place for place, name in enumerate(self.tests)}
        items[:] = sorted(
            (item for item in items if item.nodeid in order), key=lambda item: order[item.nodeid]
        )

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        limit_cpu(_SLACK + 5 * self.seconds[item.nodeid])


class _Observed:
    """Notes which lines each test runs, and how long it takes."""

    def __init__(self, tracer: coverage.Coverage) -> None:
        self.tracer = tracer
        self.seconds: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.tracer.switch_context(item.nodeid)
        began = time.process_time()
        try:
            return (yield)
        finally:
            self.seconds[item.nodeid] = time.process_time() - began
            self.tracer.switch_context("")


def limit_cpu(seconds: float) -> None:
    """Let SIGPROF end this process after so many more seconds of CPU time."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def run_tests(plugin: object, *files: str) -> int:
    """Run pytest in this process; return its exit code."""
    options = ["-x", "-q", "--noconftest", "--no-header", "--tb=no", f"--rootdir={ROOT}"]
    options += ["--assert=plain", "-p", "no:cacheprovider", "-p", "no:unraisableexception"]
    return int(pytest.main([*options, *(str(ROOT / file) for file in files)], plugins=[plugin]))


def silence() -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)


def try_mutant(module: str, mutant: Mutant, known: Baseline) -> int:
    """Run the tests against a mutant; return what became of it. Only in a process of its own."""
    limit_memory()
    path = ROOM / f"{module}.py"
    sys.meta_path.insert(0, _Replaced(f"ipcpoll._wire.{module}", path, mutant.source))
    for file, tests in known.of(module, mutant).items():
        limit_cpu(_SLACK + 3 * known.cpu_of_importing)
        if run_tests(_Chosen(tests, known.seconds), file) != 0:
            return KILLED
    return SURVIVED


def limit_memory() -> None:
    """Bound this process's memory, also where there is no mutant: a test must not need more."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))


def observe(tests: tuple[str, ...]) -> dict[str, Any]:
    """Run all the tests without a mutant; return what `Baseline` holds."""
    limit_memory()
    paths = {module: str(ROOM / f"{module}.py") for module in MODULES}
    tracer = coverage.Coverage(
        data_file=None, include=list(paths.values()), config_file=False, messages=False
    )
    observed = _Observed(tracer)
    began = time.process_time()
    with tracer.collect():
        code = run_tests(observed, *tests)
    assert code == 0, f"the tests fail without a mutant (pytest's exit code is {code})"
    everything = time.process_time() - began
    data = tracer.get_data()
    lines = {module: data.contexts_by_lineno(path) for module, path in paths.items()}
    importing = everything - sum(observed.seconds.values())
    return {"seconds": observed.seconds, "lines": lines, "importing": importing}


# ---------------------------------------------------------------------------------------------
# In this process


@contextmanager
def prepared() -> Iterator[None]:
    """Set what the forked processes inherit: no plugins, examples that are not made smaller, and
    what was compiled once (outside the tree)."""
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
    hypothesis.settings.register_profile(
        "mutants", derandomize=True, deadline=None, database=None, phases=phases
    )
    before = hypothesis.settings.get_current_profile_name()
    hypothesis.settings.load_profile("mutants")
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    gc.freeze()
    compiled = sys.pycache_prefix, sys.dont_write_bytecode
    try:
        with tempfile.TemporaryDirectory() as sys.pycache_prefix:
            sys.dont_write_bytecode = False
            yield
    finally:
        sys.pycache_prefix, sys.dont_write_bytecode = compiled
        gc.unfreeze()
        del os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"]
        hypothesis.settings.load_profile(before)


def baseline(tests: tuple[str, ...]) -> Baseline:
    """Return what is known of the tests in these files, from a process of its own."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reading)
            silence()
            with os.fdopen(writing, "w") as pipe:
                try:
                    json.dump(observe(tests), pipe)
                    status = 0
                except BaseException as error:
                    json.dump({"failed": repr(error)}, pipe)
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = json.load(pipe)
    os.waitpid(pid, 0)
    assert "failed" not in said, said["failed"]
    lines = {
        module: {int(line): set(tests) for line, tests in by_line.items()}
        for module, by_line in said["lines"].items()
    }
    return Baseline(said["seconds"], lines, said["importing"])


class Trials:
    """Tries mutants, several at a time."""

    def __init__(self, known: Baseline, processes: int) -> None:
        self.known = known
        self.processes = processes
        self.running: dict[int, tuple[str, Mutant, float]] = {}
        self.fates: list[tuple[str, Mutant, bool]] = []
        """Module, mutant, and whether it was killed."""

    def start(self, module: str, mutant: Mutant) -> None:
        """Try a mutant as soon as there is room."""
        while len(self.running) >= self.processes:
            self.reap()
        if not self.known.of(module, mutant):
            self.fates.append((module, mutant, False))
            return
        pid = os.fork()
        if pid == 0:
            fate = KILLED
            try:
                silence()
                fate = try_mutant(module, mutant, self.known)
            finally:
                os._exit(fate)
        self.running[pid] = module, mutant, time.monotonic() + PATIENCE

    def reap(self) -> None:
        """Wait for one of them to end."""
        for pid, (module, mutant, deadline) in list(self.running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended and time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            if ended:
                del self.running[pid]
                self.fates.append((module, mutant, status != SURVIVED))
                return
        signal.sigtimedwait({signal.SIGCHLD}, 1)

    def finish(self) -> None:
        while self.running:
            self.reap()


def explained() -> Counter[tuple[str, str, str, str]]:
    """Return how often each survivor has a reason: module, function, line before and after."""
    with EXPLAINED.open("rb") as file:
        entries = tomllib.load(file)["explained"]
    assert all(entry["reason"] for entry in entries)
    return Counter(
        (entry["module"], entry["function"], entry["was"], becomes)
        for entry in entries
        for becomes in entry["becomes"]
    )


def named(module: str, mutant: Mutant) -> tuple[str, str, str, str]:
    """Return what a mutant is known by, as `explained` has it."""
    return (module, *mutant.name)


def shown(module: str, mutant: Mutant) -> str:
    """Return an entry of the file of explained survivors, without its reason."""
    quoted = {
        "module": module,
        "function": mutant.function,
        "was": mutant.was,
    }
    lines = [f"{name} = {json.dumps(text)}" for name, text in quoted.items()]
    return "\n".join(["[[explained]]", *lines, f"becomes = [{json.dumps(mutant.becomes)}]"])


def try_all(
    chosen: list[tuple[str, Mutant]], seconds: float, tests: tuple[str, ...] = TESTS
) -> Trials:
    """Try as many of the mutants as there is time for, with the tests in these files."""
    deadline = time.monotonic() + seconds
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    try:
        with prepared():
            trials = Trials(baseline(tests), len(os.sched_getaffinity(0)))
            for module, mutant in chosen:
                if time.monotonic() > deadline:
                    break
                trials.start(module, mutant)
            trials.finish()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return trials


def all_mutants() -> list[tuple[str, Mutant]]:
    """Return every mutant with its module, in an order by chance, which is always the same."""
    found = [
        (module, mutant)
        for module in MODULES
        for mutant in mutants((ROOM / f"{module}.py").read_text(encoding="utf-8"))
    ]
    random.Random(0).shuffle(found)
    return found


def campaign(seconds: float) -> Figures:
    """Try the mutants; raise AssertionError when too few are killed."""
    everything = all_mutants()
    trials = try_all(everything, seconds)
    tried = len(trials.fates)
    survivors = [(module, mutant) for module, mutant, killed in trials.fates if not killed]
    known = explained()
    new = [one for one in survivors if named(*one) not in known]
    for module, mutant in sorted(new, key=lambda one: (one[0], one[1].first)):
        print(f"\n# no test noticed:\n{shown(module, mutant)}", file=sys.stderr)
    gone = known.keys() - {named(*one) for one in everything}
    for name in sorted(gone):
        print(f"\n# explained, and not there any more: {name}", file=sys.stderr)
    # Several mutants may have one name, and then it is enough that one survives.
    noticed = known.keys() & {named(module, mutant) for module, mutant, _ in trials.fates}
    noticed -= {named(*one) for one in survivors}
    for name in sorted(noticed):
        print(f"\n# explained, and a test noticed: {name}", file=sys.stderr)
    figures: Figures = {"mutants": len(everything), "mutants tried": tried}
    for module in MODULES:
        fates = [killed for of, _, killed in trials.fates if of == module]
        if fates:
            figures[f"{module}, killed (%)"] = round(100 * sum(fates) / len(fates), 2)
    score = 100 * (tried - len(survivors)) / tried
    figures["killed (%)"] = round(score, 2)
    figures["survivors, explained"] = len(survivors) - len(new)
    figures["survivors, new"] = len(new)
    figures["explained, and gone or noticed"] = len(gone) + len(noticed)
    assert score >= LEAST_SCORE, figures
    return figures


if __name__ == "__main__":
    run_as_program(campaign, about=__doc__)
