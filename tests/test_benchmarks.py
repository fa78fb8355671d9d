"""The benchmarks run. What they measure is not looked at: that is another machine's every time."""

import os
import select
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from loops import screen

pytestmark = pytest.mark.once

FOLDER = Path(__file__).parents[1] / "benchmarks"
BENCHMARKS = sorted({path.stem for path in FOLDER.glob("[!_]*.py")} - {"plot"})
PATIENCE_SECONDS = 60
WITH_WINDOWS = ["adapters", "threads"]


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="measured beside epoll")
@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_prints_its_table_and_removes_its_files(name: str, tmp_path: Path) -> None:
    program = FOLDER / f"{name}.py"
    with screen() if name in WITH_WINDOWS else nullcontext("") as display:
        done = subprocess.run(
            [sys.executable, "-W", "error", str(program), "--quick", "--rounds", "1"],
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            env={**os.environ, "TMPDIR": str(tmp_path), "DISPLAY": display},
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{name}: 1 alternating rounds" in done.stdout
    assert "\n----" in done.stdout  # below a table's head
    assert list(tmp_path.iterdir()) == []
