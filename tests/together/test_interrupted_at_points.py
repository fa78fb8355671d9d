"""A spread sample of what tests/campaign/interruptions.py does completely."""

from __future__ import annotations

import tempfile

import interruptions
import pytest
from interrupted_scenarios import SCENARIOS

pytestmark = pytest.mark.once

RUNS = 40  # of each scenario


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_hazard_57_interrupted_where_a_signal_can_come(scenario):
    with interruptions.quiet(), tempfile.TemporaryDirectory(prefix="ipcpoll-") as directory:
        steps = interruptions.count(scenario, directory)
        assert steps > RUNS
        for turn in range(RUNS):
            interruptions.strike(scenario, directory, 1 + turn * steps // RUNS)


def test_hazard_57_storm_of_interruptions():
    with interruptions.quiet():
        figures = interruptions.storm(1.5)
    print(figures)
    assert figures["storm: interruptions"] > 20
    assert figures["storm: answers"] > 20
