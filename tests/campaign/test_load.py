"""The campaign's load, for a moment: `make campaign` runs it for minutes."""

from __future__ import annotations

import load
import pytest
from moment import for_a_moment


@pytest.mark.once
def test_load_for_a_moment():
    found = for_a_moment("load", 4)
    assert found["clients connected at once"] == 1000
    assert found["storm: connects at once"] == load.STORM
    assert found["pipelining clients"] == load.PIPELINES
    assert found["connections in sequence"] > 100
