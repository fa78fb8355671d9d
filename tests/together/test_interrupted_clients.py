"""KeyboardInterrupt at every point where CPython can deliver one in the methods of a client.

All points, not a sample: a client's guard that stays held was found after hundreds of real ones.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import interruptions
import pytest
from interrupted_clients import CLIENT_SCENARIOS, server_process
from interrupting import Interrupter

from ipcpoll._system import guard as door

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Where the server of all the cases is."""
    with (
        tempfile.TemporaryDirectory(prefix="ipcpoll-") as directory,
        server_process(f"{directory}/s"),
    ):
        yield f"{directory}/s"


@pytest.mark.parametrize("scenario", CLIENT_SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_hazard_57_client_is_interrupted_where_a_signal_can_come(server, scenario):
    with interruptions.quiet():
        steps = interruptions.count_client(scenario, server)
        assert steps > 40
        for at in range(1, steps + 1):
            interruptions.strike_client(scenario, server, at)


@pytest.mark.parametrize("scenario", CLIENT_SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_the_guard_is_among_the_points(server, scenario):
    """Also between the end of a ``with`` and the first step of `__exit__`."""
    places = set()

    class Listed(Interrupter):
        def _is_step(self, frame):
            is_step = super()._is_step(frame)
            if is_step and frame.f_code.co_filename == door.__file__:
                places.add((frame.f_code.co_name, self._before_first(frame)))
            return is_step

        def _before_first(self, frame):
            return frame.f_lineno == frame.f_code.co_firstlineno + 1

    listed = Listed(0, KeyboardInterrupt, points=True)
    with interruptions.quiet():
        interruptions.run_interrupted_client(server, scenario, listed)
    if scenario.__name__ != "close":
        assert {("__enter__", True), ("__exit__", True)} <= places


def test_hazard_57_storm_of_interruptions_of_a_client(server):
    with interruptions.quiet():
        figures = interruptions.storm_of_clients(server, 1.5)
    print(os.path.basename(server), figures)
    assert figures["client storm: interruptions"] > 20
    assert figures["client storm: answers"] > 20
