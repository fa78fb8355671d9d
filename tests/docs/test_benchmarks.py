"""The benchmarks run. What they measure is not looked at: that is another machine's every time."""

import json
import os
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from loops import screen

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not hasattr(select, "epoll"), reason="measured beside epoll"),
]

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks"
BENCHMARKS = {
    path.stem: path
    for where in (FOLDER, FOLDER / "peers")
    for path in sorted(where.glob("[!_]*.py"))
}
SHOWN = sorted({*BENCHMARKS} - {"sliced_job", "threads", "topics"})  # in docs/benchmarks.md
PATIENCE_SECONDS = 180  # some take 40 s on a core that has much else to do
WITH_WINDOWS = ["adapters", "threads"]

Measure = Callable[[str], tuple[subprocess.CompletedProcess[str], Path]]


@pytest.fixture(scope="module")
def measure(tmp_path_factory: pytest.TempPathFactory) -> Measure:
    """Run a benchmark in its shortest form; the second time tell what came out the first time."""
    figures = tmp_path_factory.mktemp("figures")
    done: dict[str, subprocess.CompletedProcess[str]] = {}

    def measure_once(name: str) -> tuple[subprocess.CompletedProcess[str], Path]:
        written = figures / f"{name}.json"
        if name not in done:
            options = ["--quick", "--rounds", "1", "--json", str(written)]
            own = tmp_path_factory.mktemp(name)
            with screen() if name in WITH_WINDOWS else nullcontext("") as display:
                done[name] = run(BENCHMARKS[name], *options, TMPDIR=str(own), DISPLAY=display)
            assert list(own.iterdir()) == []
        return done[name], written

    return measure_once


def run(program: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", str(program), *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_prints_its_table_keeps_its_figures_and_removes_its_files(
    name: str, measure: Measure
) -> None:
    done, written = measure(name)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{name}: 1 alternating rounds" in done.stdout
    assert "\n----" in done.stdout  # below a table's head
    kept = json.loads(written.read_text())
    assert (kept["benchmark"], kept["rounds"], kept["quick"]) == (name, 1, True)
    assert kept["machine"]
    for section in kept["sections"].values():
        for each in section["samples"].values():
            assert len(each) == 1  # round
            assert all(isinstance(figure, float | int) for figure in each[0].values())
    assert kept["sections"]


def test_plots_and_tables_are_made_from_the_figures_and_the_same_ones_again(
    measure: Measure, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    folders = {measure(name)[1].parent for name in SHOWN}
    assert len(folders) == 1
    made: list[dict[str, bytes]] = []
    for number in range(2):
        docs = tmp_path / f"{number}"
        docs.mkdir()
        shutil.copy(ROOT / "docs" / "benchmarks.md", docs)
        drawn = run(FOLDER / "report" / "plots.py", str(*folders), str(docs))
        assert (drawn.returncode, drawn.stderr) == (0, "")
        made.append({path.name: path.read_bytes() for path in docs.iterdir()})
    assert made[0] == made[1]
    document = made[0].pop("benchmarks.md").decode()
    assert "These figures prove nothing" in document  # they are of --quick
    assert made[0]
    for name, plot in made[0].items():
        assert f"]({name})" in document
        assert plot.count(b"<text") > 10  # names, numbers, axes: not empty, and text stays text


def test_what_an_adapter_costs_stands_in_one_document() -> None:
    """Figures for the same thing in two documents soon differ: one is renewed, one is forgotten."""
    figures = re.compile(r"^\| (select|asyncio|uvloop|trio|anyio|GLib|Twisted|Tk|Qt)[ ,].*\d", re.M)
    text = (ROOT / "docs/benchmarks.md").read_text()
    section = text.partition("\n## Adapters\n")[2].partition("\n## ")[0]
    assert len(figures.findall(section)) >= 7
    adapters = (ROOT / "docs/adapters.md").read_text()
    costs = adapters.partition("\n## What an adapter costs\n")[2].partition("\n## ")[0]
    assert "benchmarks.md#adapters" in costs
    assert figures.findall(costs) == []
