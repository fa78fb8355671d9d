"""The limits: which values make sense."""

import ast
import dataclasses
import math
import re
from pathlib import Path

import pytest

import ipcpoll
from ipcpoll import Limits
from ipcpoll.limits import DEFAULT_LIMITS

SECONDS = {field.name for field in dataclasses.fields(Limits) if field.name.endswith("_seconds")}
COUNTS = {field.name for field in dataclasses.fields(Limits)} - SECONDS


def test_one_limit_is_changed_and_the_others_stay():
    limits = Limits(max_clients=7)
    assert limits.max_clients == 7
    assert dataclasses.replace(limits, max_clients=DEFAULT_LIMITS.max_clients) == DEFAULT_LIMITS


def test_limits_are_frozen_and_named():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DEFAULT_LIMITS.max_clients = 1
    with pytest.raises(TypeError):
        Limits(0.005)


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_count_is_a_whole_number_of_at_least_one(name):
    assert getattr(Limits(**{name: 1}), name) == 1
    assert getattr(Limits(**{name: 10**400}), name) == 10**400
    for value in (0, -1):
        with pytest.raises(ValueError, match=f"Limits.{name} must be at least 1, not {value}"):
            Limits(**{name: value})
    for value in (1.5, math.inf, math.nan, None, "5"):
        with pytest.raises(
            ValueError, match=f"Limits.{name} must be a whole number, not {value!r}"
        ):
            Limits(**{name: value})


@pytest.mark.parametrize("name", sorted(SECONDS))
def test_time_is_finite_and_at_least_zero(name):
    for value in (0, 0.0, 0.25, 3):
        assert getattr(Limits(**{name: value}), name) == value
    for value in (-0.1, math.inf, -math.inf, math.nan):
        with pytest.raises(ValueError, match=f"Limits.{name} must be at least 0, not {value}"):
            Limits(**{name: value})
    for value in (None, "5"):
        with pytest.raises(ValueError, match=f"Limits.{name} must be a number of seconds"):
            Limits(**{name: value})


def said_to_be_enforced_in() -> dict[str, list[str]]:
    """Return the files that each limit names, as they are written under it."""
    package = Path(ipcpoll.__file__).parent
    [cls] = [
        node
        for node in ast.parse((package / "limits.py").read_text()).body
        if isinstance(node, ast.ClassDef)
    ]
    named: dict[str, list[str]] = {}
    for field, words in zip(cls.body, cls.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(words, ast.Expr)
            sentence = " ".join(ast.literal_eval(words.value).split())
            [where] = re.findall(r"Enforced in (.*)\.$", sentence)
            named[ast.unparse(field.target)] = re.findall(r"`([^`]+)`", where)
    return named


def test_each_limit_names_the_files_that_enforce_it():
    """So that nobody has to search for them; and the files do use it."""
    package = Path(ipcpoll.__file__).parent
    named = said_to_be_enforced_in()
    assert named.keys() == COUNTS | SECONDS
    for name, files in named.items():
        assert files
        for file in files:
            uses = re.search(rf"limits\.{name}\b", (package / file).read_text())
            assert uses, f"{file} does not use {name}"
