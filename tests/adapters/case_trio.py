"""The conformance suite in trio, and the cases of `serve`."""

from __future__ import annotations

import trio
import trio.testing
from inside import Bites, Inside, Serving, never_wakes

from ipcpoll.adapters import trio_loop


class TestTrio(Inside):
    library = trio
    adapter = trio_loop
    open_group = staticmethod(trio.open_nursery)


class TestServe(Serving):
    library = trio
    adapter = trio_loop
    open_group = staticmethod(trio.open_nursery)
    wait_all_tasks_blocked = staticmethod(trio.testing.wait_all_tasks_blocked)


class TestBites(Bites):
    suite = TestServe
    attachment = trio_loop.TrioAttachment

    def test_descriptor_stays_in_the_books(self, monkeypatch):
        """To cancel the wait is not enough for trio."""
        never_wakes(monkeypatch, self.attachment)
        self.fails(monkeypatch, "test_cancelled_and_served_again", match="in the loop's books")
