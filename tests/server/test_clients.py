"""How many clients there may be (hazard 24 of docs/security.md).

What they may keep in memory is in tests/promises/test_bounded_and_fair.py and
tests/hazards/test_memory.py.
"""

from __future__ import annotations

import resource

import pytest


@pytest.mark.parametrize(
    ("descriptors", "wanted", "most"),
    [(1024, 256, 256), (1024, 257, 256), (400, 256, 100), (3, 256, 1), (4096, 1000, 1000)],
)
def test_hazard_24_clients_take_a_quarter_of_the_descriptors(
    make_server, monkeypatch, caplog, descriptors, wanted, most
):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (descriptors, 5000))
    server = make_server(max_clients=wanted)
    assert server._clients._most == most
    if most < wanted:
        assert caplog.messages == [
            f"no more than {most} clients, not {wanted}: a quarter of the {descriptors} "
            "descriptors that this process may have"
        ]
    else:
        assert not caplog.records


def test_hazard_24_descriptors_without_a_limit(make_server, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY,) * 2)
    assert make_server(max_clients=5000)._clients._most == 5000
