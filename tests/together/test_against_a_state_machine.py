"""The state machine of tests/campaign/model.py: the same examples each time, and not many."""

import model
import pytest


@pytest.mark.once
def test_clients_and_server_against_the_model():
    model.COUNTS.clear()
    model.play(120, derandomize=True)
    print(dict(model.COUNTS))
    assert model.COUNTS["examples"] >= 120
    assert model.COUNTS["answers"] >= 100
    assert model.COUNTS["closes"] >= 1
