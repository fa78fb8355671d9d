"""The suite in an environment of its own: with other dependencies, or under another Python.

Left out are the tests whose subject is a loop, a window, an example or the project itself: they say
nothing about a dependency or an interpreter that the others do not say.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent.parent
_LEFT_OUT: Final = (
    "attach/case_",
    "attach/test_adapters",
    "attach/test_conformance_bites",
    "attach/test_select_loop",
    "campaign/test_fuzz",  # it needs what the extra `campaign` brings
    "campaign/test_mutants",
    "docs/test_benchmarks",
    "docs/test_gallery",
    "docs/test_readme",
    "examples/",
    "test_packaging",
    "system/test_gevent_eventlet",
)


def floors() -> dict[str, str]:
    """Return the oldest version of each dependency that pyproject.toml allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return dict(dependency.split(">=") for dependency in project["dependencies"])


def run(*command: str | Path) -> str:
    """Run a command at the root; return what it says. Raises AssertionError when it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout[-8000:]}"
    return done.stdout


def make(directory: str, releases: str, python: str | None = None) -> Path:
    """Make an environment with the releases of a list in .ci/pinned; return its Python."""
    run(".ci/environment", directory, releases, *([python] if python else []))
    return ROOT / directory / "bin" / "python"


def version(python: Path, name: str) -> str:
    """Return which version of a package an environment has."""
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    return run(python, "-c", code).strip()


def run_suite(python: Path, *options: str) -> dict[str, int | str]:
    """Run the suite; return how many tests have passed and how many were skipped."""
    tests = ROOT / "tests"
    files = sorted(
        file
        for file in tests.rglob("test_*.py")
        if not str(file.relative_to(tests)).startswith(_LEFT_OUT)
    )
    said = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, *files)
    counted = {word: int(count) for count, word in re.findall(r"(\d+) (passed|skipped)", said)}
    assert counted.get("passed", 0) > 1000, said[-2000:]
    return {f"tests {word}": count for word, count in counted.items()}


if __name__ == "__main__":
    sys.exit("this is no part: run oldest_dependencies.py or free_threaded.py")
