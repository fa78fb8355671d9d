"""The conformance suite in trio, and the cases of `serve`."""

from __future__ import annotations

import asyncio

import trio
import trio.testing
from clients import ClientCases
from inside import Bites, Inside, Serving, never_wakes

from ipcpoll.adapters import trio_loop
from ipcpoll.testing import PATIENCE


class TestTrio(ClientCases, Inside):
    library = trio
    adapter = trio_loop
    open_group = staticmethod(trio.open_nursery)


class TestServe(Serving):
    library = trio
    adapter = trio_loop
    open_group = staticmethod(trio.open_nursery)
    wait_all_tasks_blocked = staticmethod(trio.testing.wait_all_tasks_blocked)

    def test_guest_of_another_loop(self):
        """Trio waits in a thread then, and the host closes the server from outside."""
        server, ctx = self.make_server()
        fd = server.fileno()

        async def host():
            loop = asyncio.get_running_loop()
            ended = loop.create_future()
            trio.lowlevel.start_guest_run(
                self.adapter.serve,
                server,
                ctx,
                run_sync_soon_threadsafe=loop.call_soon_threadsafe,
                done_callback=ended.set_result,
            )
            await loop.run_in_executor(None, self.ask, server)
            server.close()
            self.nothing_is_left(server, fd)
            (await asyncio.wait_for(ended, PATIENCE)).unwrap()

        asyncio.run(host())
        assert ctx.log == list(range(10))


class TestBites(Bites):
    suite = TestServe
    attachment = trio_loop.TrioAttachment

    def test_descriptor_stays_in_the_books(self, monkeypatch):
        """To cancel the wait is not enough for trio."""
        never_wakes(monkeypatch, self.attachment)
        self.fails(monkeypatch, "test_cancelled_and_served_again", match="in the loop's books")
