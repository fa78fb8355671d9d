"""The campaign's runner: the table, the shares of time, what is kept, what is written."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import pytest
import report
import run
from report import BEGIN, END, Outcome
from run import TABLE, Campaign, Entry

PART = '''
"""A part of a test."""
import sys
sys.path.insert(0, {folder!r})
from part import run_as_program

def campaign(seconds):
    {body}
    return {{"asked for": seconds}}

run_as_program(campaign, about=__doc__)
'''


@pytest.fixture
def parts(tmp_path):
    """Make parts of their bodies, run them, and return the outcomes and what was said."""
    said = []

    def run_them(seconds=100, **bodies):
        for name, body in bodies.items():
            text = PART.format(folder=str(run.HERE), body=body).lstrip()
            (tmp_path / f"{name}.py").write_text(text)
        entries = [Entry(name, 1, alone=name.startswith("alone")) for name in bodies]
        made = Campaign(seconds, tmp_path, tmp_path, entries, say=said.append)
        return {outcome.name: outcome for outcome in made.run()}, said

    return run_them


def test_table_holds_every_part_once():
    names = [entry.name for entry in TABLE]
    assert len(names) == len(set(names))
    assert set(run.parts_in(run.HERE)) <= set(names)


def test_part_that_passes_and_one_that_does_not(parts, tmp_path):
    outcomes, said = parts(good="print('so far so good')", bad="assert seconds < 0, 'a fault'")
    assert outcomes["good"].passed
    assert outcomes["good"].figures["asked for"] > 0
    assert outcomes["good"].about == "A part of a test."
    assert not outcomes["bad"].passed
    assert "so far so good" in (tmp_path / "good.txt").read_text()
    assert any("a fault" in line for line in said)


def test_two_at_a_time_and_one_alone(parts, tmp_path):
    body = f"""
    import time, os
    began = time.monotonic()
    while time.monotonic() < began + 0.3: os.sched_yield()
    open({str(tmp_path)!r} + "/times", "a").write(f"{{began}} {{time.monotonic()}}\\n")"""
    outcomes, _ = parts(a=body, b=body, alone=body)
    assert all(outcome.passed for outcome in outcomes.values())
    times = [
        tuple(map(float, row.split())) for row in (tmp_path / "times").read_text().split("\n")[:-1]
    ]
    (_, ended_1), (began_2, ended_2), (began_3, _) = sorted(times)
    assert began_2 < ended_1
    assert began_3 >= max(ended_1, ended_2)


def test_part_that_leaves_processes_behind(parts, tmp_path):
    """They end with it."""
    body = f"""
    import subprocess
    child = subprocess.Popen([{sys.executable!r}, "-c", "import signal; signal.pause()"])
    open({str(tmp_path)!r} + "/pid", "w").write(str(child.pid))"""
    parts(a=body)
    pid = (tmp_path / "pid").read_text()
    deadline = time.monotonic() + 20
    while True:  # a zombie until somebody reaps it
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
        except FileNotFoundError:
            break
        if state == "Z":
            break
        assert time.monotonic() < deadline


def test_part_that_is_not_there_and_one_that_was_killed(parts, tmp_path):
    outcomes, _ = parts(killed="import os; os.kill(os.getpid(), 9)")
    assert not outcomes["killed"].passed
    said = []
    campaign = Campaign(10, tmp_path, tmp_path, [Entry("absent", 1)], say=said.append)
    assert campaign.run() == []
    assert said == ["absent: it is not there"]


def test_shares_of_the_time(tmp_path):
    """Together they are the campaign's time; what one did not need goes to the next ones."""
    now = [0.0]
    entries = [Entry("a", 2), Entry("b", 2), Entry("c", 1, alone=True)]
    campaign = Campaign(60, tmp_path, tmp_path, entries[1:], clock=lambda: now[0])
    assert campaign.share(entries[0]) == pytest.approx(40)  # of 120 in two lanes
    campaign.running = []
    campaign.waiting = []
    now[0] = 50.0
    assert campaign.share(entries[2]) == pytest.approx(10)
    now[0] = 100.0
    assert campaign.share(entries[2]) > 0, "the others took longer, and it is run nevertheless"


def test_report_is_written_between_its_markers():
    about = {"date": "today"}
    outcomes = [
        Outcome("a", "What it does.", True, {"runs": 1234567, "rate": 0.5, "words": "x|y"}),
        Outcome("b", "Another.", False, {}),
    ]
    text = report.as_markdown(about, outcomes)
    assert "| runs  | 1,234,567 |" in text
    assert "### b — FAILED" in text
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    once = report.put(page, text)
    assert once.startswith("before\n")
    assert once.endswith("\nafter\n")
    assert "old" not in once
    assert report.put(once, text) == once
    with pytest.raises(AssertionError, match="no place"):
        report.put("a page", text)


def test_aims_stand_beside_what_was_reached():
    outcomes = [
        Outcome("soak", "", True, {"good messages": 10**7, "faults injected": 99_999, "lost": 0}),
        Outcome("load", "", True, {"memory per idle connection, KiB": 2.51, report.IDLE_POLL: 1.2}),
        Outcome("syscall_faults", "", True, {"complete": "no"}),
        Outcome("interruptions", "", True, {"complete": "yes"}),
    ]
    text = report.as_markdown({}, outcomes)
    reached = {
        words[1]: words[2:5]
        for words in (re.split(r" *\| *", line) for line in text.splitlines())
        if len(words) == 6
    }
    assert reached["soak: good messages"] == ["≥ 10,000,000", "10,000,000", "yes"]
    assert reached["soak: faults injected"] == ["≥ 100,000", "99,999", "**no**"]
    assert reached["soak: lost"] == ["≤ 0", "0", "yes"]
    assert reached["soak: doubled"] == ["≤ 0", "none", "**no**"]
    assert reached["load: memory per idle connection, KiB"] == ["≤ 2.5", "2.51", "**no**"]
    assert reached[f"load: {report.IDLE_POLL}"] == ["≤ 1.2", "1.2", "yes"]
    assert reached["syscall_faults: complete"] == ["yes", "no", "**no**"]
    assert reached["interruptions: complete"] == ["yes", "yes", "yes"]
    assert "races" not in text


def test_aims_are_figures_of_parts():
    """By their names; the programs write them."""
    programs = {aim.part: (run.HERE / f"{aim.part}.py").read_text() for aim in report.AIMS}
    for aim in report.AIMS:
        assert f'"{aim.figure}"' in programs[aim.part] or aim.figure == report.IDLE_POLL


def test_document_has_the_place():
    assert report.put(report.DOCUMENT.read_text(), "x") != ""


def test_what_a_report_says_of_the_machine():
    said = report.describe()
    assert set(said) == {"date", "commit", "Python", "kernel", "cores", "cbor2", "msgspec"}
    assert all(said.values())
    json.dumps(said)


def test_unknown_part_is_refused(capsys):
    with pytest.raises(SystemExit):
        run.main(["nobody"])
    assert "there is no part nobody" in capsys.readouterr().err
