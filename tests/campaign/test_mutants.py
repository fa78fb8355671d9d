"""The short form of the mutation testing in tests/campaign: what mutants are, and that it bites."""

from __future__ import annotations

import json
import sys

import pytest
from harness import PATIENCE, ROOT, run_python

sys.path.insert(0, str(ROOT / "tests" / "campaign"))

import mutations
from mutants import mutants

pytestmark = pytest.mark.once

SOURCE = '''"""A module."""

MOST: int = 10


def least(items: list[int], start: int = 0) -> int | None:
    """The docstring."""
    found = None
    for item in items[start:]:
        if item < MOST and (
            found is None or item < found
        ):
            found = item
    return min(found, *items)
'''
EXPECTED = {
    ("-", "MOST: int = 10", "MOST: int = 11"),
    ("least", "found = None", "pass"),
    ("least", "found = item", "pass"),
    ("least", "return min(found, *items)", "pass"),
    ("least", "return min(found, *items)", "return min(*items)"),
    ("least", "for item in items[start:]:", "for item in items[:]:"),
    ("least", "if item < MOST and ( found is None or item < found ):", "if False:"),
    (
        "least",
        "if item < MOST and ( found is None or item < found ):",
        "if (item <= MOST) and ( found is None or item < found ):",
    ),
    (
        "least",
        "if item < MOST and ( found is None or item < found ):",
        "if item < MOST and ( found is not None or item < found ):",
    ),
}


def plain(text: str) -> str:
    """Return a line without what brackets and blanks make different."""
    return "".join(text.replace("(", "").replace(")", "").split())


def test_usual_wrong_changes_are_made() -> None:
    made = list(mutants(SOURCE))
    names = {(one.function, one.was, plain(one.becomes)) for one in made}
    for function, was, becomes in EXPECTED:
        assert (function, was, plain(becomes)) in names
    for one in made:
        compile(one.source, "mutant", "exec")
        assert one.source != SOURCE
        assert len(one.source.splitlines()) == len(SOURCE.splitlines())
        assert one.first <= one.last
        assert "docstring" not in one.was
        assert "def least" not in one.was or "start: int = 1" in one.becomes


def test_what_is_not_measured_is_not_changed() -> None:
    source = "if x:  # pragma: no cover - for another reason\n    y = 1\nz = 2\n"
    assert {one.was for one in mutants(source)} == {"z = 2"}


def test_lines_of_the_modules_are_found_again() -> None:
    """Every survivor that is explained is a mutant with a reason."""
    for module, function, was, becomes in mutations.explained():
        assert module in mutations.MODULES
        assert function
        assert was != becomes


TRIAL = """
import json, sys
sys.path.insert(0, "tests/campaign")
import mutations
chosen = [(module, one) for module, one in mutations.all_mutants() if module == "framing"][:3]
harmless = chosen[0][1]
source = (mutations.ROOM / "framing.py").read_text(encoding="utf-8")
endless = source + "\\nFrameBuffer.next = lambda self: max(iter(int, 1))\\n"
everywhere = harmless._replace(first=1, last=source.count("\\n"))  # so that all tests may notice
chosen += [("framing", everywhere._replace(source=source))]
chosen += [("framing", everywhere._replace(source=endless))]
trials = mutations.try_all(chosen, 600, mutations.TESTS[:1])
fates = {one.source: killed for _, one, killed in trials.fates}  # in the order of their ends
print(json.dumps([fates[one.source] for _, one in chosen]))
"""


def test_mutants_are_killed_and_the_module_as_it_is_is_not() -> None:
    process = run_python(TRIAL)
    try:
        out, err = process.communicate(timeout=10 * PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 0, err
    *fates, as_it_is, endless = json.loads(out)
    assert len(fates) == 3
    assert sum(fates) >= 1
    assert not as_it_is
    assert endless
