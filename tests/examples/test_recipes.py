"""examples/recipes: each is run as its users run it, and called by a real client."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import pytest
from harness import ROOT, wait_until
from loops import need, screen
from recipe_runs import FOLDER, RECIPES, Running, program, without_ipcpoll

import ipcpoll

pytestmark = pytest.mark.once

CALLS = 100
MOST_LINES = 25
IDLE_SECONDS = 0.5
COMPLAINTS = re.compile(r"Traceback|Error|Warning|Exception", re.IGNORECASE)


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    with screen() as name:
        yield name


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, directory: str) -> ModuleType:
    """What the recipes import; and the clients of this test look where they serve."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
    import calc

    return calc


@pytest.mark.parametrize(
    ("name", "runner"), [*((name, ()) for name in RECIPES), ("gevent", ("-m", "gevent.monkey"))]
)
def test_recipe(
    name: str,
    runner: tuple[str, ...],
    request: pytest.FixtureRequest,
    commands: ModuleType,
    directory: str,
) -> None:
    recipe = RECIPES[name]
    need(recipe.module, recipe.install, everywhere=False)
    display = request.getfixturevalue("display") if recipe.display else ""
    most = 3 + recipe.own * IDLE_SECONDS
    with Running(name, directory, display, runner=runner) as running:
        with running.connect() as client:
            answers = [client.call(commands.Add(number, 1)) for number in range(CALLS)]
            assert answers == list(range(1, CALLS + 1))
            # The start of some of them takes a while; sooner or later there is nothing to do.
            wait_until(lambda: running.idle(IDLE_SECONDS) <= most, "a quiet moment")
            client.call(commands.Stop())
        code, said = running.end()
        assert code == 0, said
        assert not COMPLAINTS.search(said), said
        assert recipe.terminal or said == ""
    assert not os.path.exists(ipcpoll.runtime_path("calc"))


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.goodbye])
def test_end_of_the_host_ends_the_server(
    name: str, request: pytest.FixtureRequest, commands: ModuleType, directory: str
) -> None:
    recipe = RECIPES[name]
    need(recipe.module, recipe.install, everywhere=False)
    display = request.getfixturevalue("display") if recipe.display else ""
    with Running(name, directory, display) as running:
        with running.connect() as client:
            assert client.call(commands.Add(2, 3)) == 5
        code, said = running.end()
        assert (code, COMPLAINTS.search(said)) == (0, None), said
    assert not os.path.exists(ipcpoll.runtime_path("calc"))


def test_last_sum_is_shown_where_there_is_a_label(commands: ModuleType) -> None:
    stops: list[str] = []
    label = SimpleNamespace(text="")
    program = commands.Program(lambda: stops.append("stopped"), label)
    assert commands.Add(2, 3).process(program) == 5
    assert label.text == "2 + 3 = 5"
    commands.Stop().process(program)
    assert stops == ["stopped"]


def test_each_recipe_is_known() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == {
        "calc",
        *(program(name).stem for name in RECIPES),
    }


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_short_and_listed(name: str) -> None:
    assert len(program(name).read_text().splitlines()) <= MOST_LINES
    listed = (ROOT / "docs" / "adapters.md").read_text()
    assert f"(../examples/recipes/{program(name).name})" in listed


@pytest.mark.parametrize("name", RECIPES)
def test_server_can_be_taken_out(name: str) -> None:
    """That is what the table in docs/adapters.md compares with."""
    bare = without_ipcpoll(program(name).read_text())
    assert "server" not in re.sub(r'""".*?"""|import .*', "", bare, flags=re.DOTALL)
