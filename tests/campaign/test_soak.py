"""The campaign's soak, for a moment: `make campaign` runs it for minutes."""

from __future__ import annotations

import random

import pytest
import soak
from moment import for_a_moment
from soak_commands import Ledger, answer_to, question


@pytest.mark.once
def test_soak_for_a_moment():
    """In every loop that is installed, one after the other."""
    found = for_a_moment("soak", 5)
    assert found["loops"] == ", ".join(loop for loop in soak.LOOPS if soak.available(loop))
    assert found["good messages"] > 500
    assert found["faults injected"] > 100
    assert found["lost"] == found["doubled"] == 0


@pytest.mark.once
def test_soak_finds_a_library_that_is_broken():
    """In two ways; the campaign tries all."""
    assert for_a_moment("soak_bites", 0)["ways to break it, all found"] == 2


def test_ledger_sees_what_is_lost_doubled_or_changed():
    ledger = Ledger()
    for number in range(3):
        ledger.took("a", number, question(number))
        ledger.took("b", number, question(number))
    assert ledger.violations == []
    ledger.took("a", 4, question(4))
    ledger.took("a", 4, question(4))
    ledger.took("b", 3, question(2))
    lost, doubled, changed = ledger.violations
    assert lost.startswith("lost: a")
    assert doubled.startswith("doubled: a")
    assert "b: the payload of 3" in changed


def test_payloads_follow_from_the_number():
    assert len({question(number) for number in range(6000)}) == 6000
    assert len({answer_to(number) for number in range(6000)}) == 6000
    assert len(question(2000)) == len(answer_to(3000)) == 60_000


def test_slope_of_a_leak_and_of_noise():
    noise = random.Random(3)
    flat = [(x, 1000 + noise.gauss(0, 10)) for x in range(40)]
    leak = [(x, y + 2 * x) for x, y in flat]
    assert abs(soak.fit(flat).per_second) < 3 * soak.fit(flat).error
    slope = soak.fit(leak)
    assert slope.per_second > 3 * slope.error
    assert slope.per_second == pytest.approx(2, abs=0.5)


def samples(grown):
    """Return samples of a host whose memory grows by so many bytes in a second."""
    noise = random.Random(5)
    return [
        (x, {"bytes": 1e7 + x * grown + noise.gauss(0, 5e4), "blocks": 1e5 + x * grown / 100})
        for x in range(60)
    ]


def test_memory_that_grows_is_found():
    soak.memory("select", samples(0))
    with pytest.raises(AssertionError, match=r"bytes in 29 s"):
        soak.memory("select", samples(100_000))
    with pytest.raises(AssertionError, match=r"blocks in 29 s"):
        soak.memory("select", samples(3000))
    with pytest.raises(AssertionError, match="the memory grew by"):
        soak.memory("select", samples(2_000_000)[:8])
