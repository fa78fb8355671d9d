"""The lists of releases in .ci/pinned: whole, exact, with hashes, and true to pyproject.toml."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
PINNED = ROOT / ".ci" / "pinned"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
GROUPS = PYPROJECT["dependency-groups"]

LISTS = {
    "runtime": [],
    "test": ["test", "build"],
    "dev": ["dev", "build"],
    "bench": ["bench", "build"],
    "campaign": ["campaign", "build"],
    "oldest-3.11": ["test", "recipes", "pyside6", "pyqt6", "build", "oldest"],
    "oldest-3.12": ["test", "build", "oldest"],
    "oldest-3.13": ["test", "build", "oldest"],
}
"""Each list, and the extras and groups that it is made from, beside ipcpoll's own dependencies."""

PIN = re.compile(r"([a-z0-9-]+)(?:\[[a-z,]+\])?==([^ ;]+)((?: ;[^\\]*)?) \\")


def pins(name):
    """Return the releases of each package that a list names: several where a marker chooses."""
    found = {}
    for line in (PINNED / f"{name}.txt").read_text().splitlines():
        if match := PIN.fullmatch(line):
            found.setdefault(match[1], []).append(Version(match[2]))
        else:
            assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?|\s*#.*", line), line
    return found


def wanted(names):
    """Return what pyproject.toml asks for: ipcpoll's dependencies and these extras, all the way."""
    for text in PROJECT["dependencies"]:
        yield Requirement(text)
    for name in names:
        for text in EXTRAS.get(name) or GROUPS[name]:
            requirement = Requirement(text)
            if requirement.name == "ipcpoll":
                yield from wanted(sorted(requirement.extras))
            else:
                yield requirement


def test_every_list_is_checked():
    assert {file.stem for file in PINNED.iterdir()} == {*LISTS, "caps"}


@pytest.mark.parametrize("name", LISTS)
def test_list_has_what_pyproject_asks_for(name):
    found = pins(name)
    for requirement in wanted(LISTS[name]):
        releases = found.get(canonicalize_name(requirement.name), [])
        assert releases, f"{requirement.name} is missing: run `make pin`"
        for release in releases:
            assert release in requirement.specifier, f"{requirement}, {release}: run `make pin`"


@pytest.mark.parametrize("name", LISTS)
def test_every_release_has_a_hash(name):
    """pip asks for the hashes of all as soon as one has one; it would take none for none."""
    text = (PINNED / f"{name}.txt").read_text()
    for entry in re.split(r"\n(?=[a-z])", text)[1:]:
        assert "--hash=sha256:" in entry, entry


def test_oldest_is_the_oldest():
    found = pins("oldest-3.11")
    for requirement in wanted(LISTS["oldest-3.11"]):
        floors = [s.version for s in requirement.specifier if s.operator in (">=", "==")]
        [release] = found[canonicalize_name(requirement.name)]
        # A floor of 25.4 is met by 25.4.1, where that came first.
        assert not floors or f"{release}.0".startswith(f"{floors[0]}."), f"{requirement}, {release}"


@pytest.mark.parametrize("name", ["oldest-3.12", "oldest-3.13"])
def test_oldest_of_what_ipcpoll_itself_needs(name):
    """Of the others the oldest that has a wheel for this CPython."""
    found = pins(name)
    for text in PROJECT["dependencies"]:
        requirement = Requirement(text)
        [floor] = requirement.specifier
        assert found[requirement.name] == [Version(floor.version)]


def test_caps_have_reasons():
    """A line that holds a release back stands behind a comment that says why."""
    lines = (PINNED / "caps.txt").read_text().splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        assert line.startswith("#") or before.startswith("#"), line


def test_newest_asks_for_all_that_the_tests_use():
    asked = re.findall(r"extras=([a-z0-9,]+)$", (ROOT / ".ci" / "environment").read_text(), re.M)
    assert asked == ["test", "test,recipes,pyside6,pyqt6"]
