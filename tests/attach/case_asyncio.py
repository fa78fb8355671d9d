"""The conformance suite in asyncio, and what asyncio alone asks of its adapter."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref

import pytest
from attaching import AttachingCases
from clients import ClientCases

from ipcpoll import Client, UsageError
from ipcpoll.adapters import asyncio_loop
from ipcpoll.testing import PATIENCE, Do, FakePollable, polled


class AsyncioConformance(ClientCases, AttachingCases):
    """The suite, and the cases of asyncio, for any loop that behaves like it."""

    def new_loop(self):
        raise NotImplementedError

    def open_loop(self):
        self.loop = self.new_loop()
        self.contexts = []
        self.loop.set_exception_handler(lambda loop, context: self.contexts.append(context))

    def close_loop(self):
        self.loop.close()

    def run_loop(self):
        self.loop.run_forever()

    def stop_loop(self):
        self.loop.stop()

    def call_later(self, seconds, function):
        self.loop.call_later(seconds, function)

    runs_coroutines = True
    tells_callbacks = True

    async def sleep(self, seconds):
        await asyncio.sleep(seconds)

    def attach(self, pollable, ctx, *, max_seconds=None):
        return asyncio_loop.attach(pollable, ctx, self.loop, max_seconds=max_seconds)

    def reported(self):
        return [context["exception"] for context in self.contexts]

    # -----------------------------------------------------------------------------------------
    # Beside the suite

    def test_running_loop_is_taken(self):
        server, ctx = self.make_server()

        async def main():
            asyncio_loop.attach(server, ctx)
            await self.loop.run_in_executor(None, self.ask, server)

        self.loop.run_until_complete(main())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        assert ctx.log == list(range(10))

    def test_no_loop_runs(self):
        server, ctx = self.make_server()
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio_loop.attach(server, ctx)
        assert server.attachments == set()

    def test_loop_is_closed(self):
        server, ctx = self.make_server()
        self.close_loop()
        with pytest.raises(RuntimeError, match="closed"):
            self.attach(server, ctx)
        assert server.attachments == set()

    def test_server_is_closed(self):
        server, ctx = self.make_server()
        server.close()
        with pytest.raises(UsageError, match="closed"):
            self.attach(server, ctx)

    def test_resumed_after_the_loop_was_closed(self):
        """It can't be watched any more; it can still be detached."""
        server, ctx = self.make_server()
        attachment = self.attach(server, ctx)
        attachment.pause()
        self.close_loop()
        with pytest.raises(RuntimeError, match="closed"):
            attachment.resume()
        attachment.detach()
        assert server.attachments == set()

    def test_stale_reader_under_the_same_number(self):
        """Somebody closed a descriptor without remove_reader; its number is the server's now."""
        stale = FakePollable()
        number = stale.fileno()
        self.loop.add_reader(number, lambda: None)
        self.loop.call_soon(self.stop_loop)
        self.run_loop()  # a loop may tell the kernel of its readers only when it runs
        stale.close()
        fake = FakePollable()
        assert fake.fileno() == number
        self.attach(fake, None)
        fake.ready()
        self.run(until=polled(fake))
        fake.close()

    def test_descriptor_closed_behind_the_attachment(self):
        """By a pollable that keeps no attachments; the number that was is the one to remove."""
        fake = FakePollable()
        number = fake.fileno()
        attachment = self.attach(fake, None)
        self.run(seconds=0.02)
        fake.attachments.clear()
        fake.close()
        attachment.detach()
        assert not self.loop.remove_reader(number), "it is still in the loop's books"

    @pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
    def test_wish_to_end_leaves_the_loop(self, exception):
        """As from any callback; the loop can be run again, and serves."""
        server, ctx = self.make_server()
        attachment = self.attach(server, ctx)

        def end():
            raise exception

        ctx.do = end
        with Client(server.address, timeout=PATIENCE) as client:
            client.notify(Do())
            with pytest.raises(exception):
                self.run_loop()
        assert attachment.attached
        assert self.contexts == []
        self.run(self.asking(server))
        assert ctx.log == list(range(10))

    def test_debug_mode(self, caplog):
        """asyncio finds nothing to complain of, and knows the callback by its name."""
        caplog.set_level(logging.DEBUG, "asyncio")
        self.loop.set_debug(True)
        self.loop.slow_callback_duration = PATIENCE
        server, ctx = self.make_server()
        attachment = self.attach(server, ctx)
        self.run(self.asking(server))
        attachment.pause()
        attachment.resume()
        self.run(self.asking(server))
        server.close()
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
        assert self.contexts == []

    def test_debug_mode_and_an_exception_of_poll(self):
        self.loop.set_debug(True)
        fake = FakePollable()
        self.attach(fake, None)
        fake.error = ValueError("told")
        fake.ready()
        self.run(until=polled(fake))
        fake.close()
        [context] = self.contexts
        assert "Exception in poll of <ipcpoll.testing.fakes.FakePollable" in context["message"]

    def test_command_starts_a_task(self):
        """A command can't await, but what it starts runs on, and a stop waits for it."""
        server, ctx = self.make_server()
        self.attach(server, ctx)
        done = asyncio.Event()
        tasks = []

        async def work():
            await asyncio.sleep(0)
            done.set()

        def start():
            tasks.append(self.loop.create_task(work()))

        ctx.do = start
        with Client(server.address, timeout=PATIENCE) as client:
            client.notify(Do())
            self.loop.run_until_complete(asyncio.wait_for(done.wait(), PATIENCE))
        assert tasks[0].done()

    def test_loop_keeps_no_reference(self):
        """After a detach the loop holds neither the attachment nor the pollable."""
        fake = FakePollable()
        attachment = self.attach(fake, None)
        self.run(seconds=0.02)
        attachment.detach()
        fake.close()
        references = [weakref.ref(fake), weakref.ref(attachment)]
        del fake, attachment
        self.run(seconds=0.02)
        gc.collect()
        assert [reference() for reference in references] == [None, None]


class TestAsyncio(AsyncioConformance):
    def new_loop(self):
        return asyncio.SelectorEventLoop()

    def test_closed_loop_is_left_alone(self):
        """Not every loop takes a remove_reader after its end."""
        server, ctx = self.make_server()
        attachment = self.attach(server, ctx)
        self.close_loop()
        self.loop.remove_reader = None
        attachment.detach()
        assert server.attachments == set()
