"""What trio's and anyio's case modules share: the conformance suite, the cases of `serve`.

Both libraries have the same words for most things, so a class needs the library, how it is run, and
how a group of tasks is opened.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import tempfile
import weakref
from contextlib import ExitStack
from functools import partial

import greenlet
import pytest
from attaching import AttachingCases
from harness import Peer, call

from ipcpoll import Attachment, Client, TaskAttachment, UsageError, testing
from ipcpoll.testing import PATIENCE, AdapterConformance, Context, Do, FakePollable

ENOUGH = 1000
"""Polls without a pause, after which a case has failed that would never end."""


class Inside(AttachingCases):
    """The suite, for a library whose loop is entered once.

    The suite runs a loop, stops it, does something and runs it again. Such a library has no
    outside: what is done there is done by tasks. So it runs in a greenlet, and "stopped" means that
    one of its tasks has switched to the suite; to the library what the suite then does is a step of
    that task. It is the library's own `run`, in the same thread.
    """

    library = None
    adapter = None
    options = {}  # noqa: RUF012  # of the library's `run`

    def open_group(self):
        """Return what is entered to start tasks: a nursery, a task group."""
        raise NotImplementedError

    def attach(self, pollable, ctx, *, max_seconds=None):
        return self.adapter.attach(pollable, ctx, self.group, max_seconds=max_seconds)

    runs_coroutines = True
    tells_callbacks = True

    async def sleep(self, seconds):
        await self.library.sleep(seconds)

    def open_loop(self):
        self.errors = []
        self.hook, sys.excepthook = sys.excepthook, lambda _, error, __: self.errors.append(error)
        self.suite = greenlet.getcurrent()
        self.loop = greenlet.greenlet(lambda: self.library.run(self.main, **self.options))
        self.loop.switch()

    async def main(self):
        async with self.open_group() as self.group:
            self.closing = False
            while not self.closing:
                self.stopped = self.library.Event()
                self.suite.switch()
                await self.stopped.wait()
            self.group.cancel_scope.cancel()

    def close_loop(self):
        sys.excepthook = self.hook
        if not self.loop.dead:
            self.closing = True
            self.stopped.set()
            self.loop.switch()
            assert self.loop.dead

    def run_loop(self):
        assert not self.loop.dead
        self.loop.switch()

    def stop_loop(self):
        self.stopped.set()

    def call_later(self, seconds, function):
        async def call():
            await self.library.sleep(seconds)
            function()

        self.group.start_soon(call)

    def reported(self):
        return self.errors

    # -----------------------------------------------------------------------------------------
    # Beside the suite

    def test_server_is_closed(self):
        server, ctx = self.make_server()
        server.close()
        with pytest.raises(UsageError, match="closed"):
            self.attach(server, ctx)

    def test_library_keeps_no_reference(self):
        """After a detach it holds neither the attachment nor the pollable."""
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


def watched(fd):
    """Return whether an epoll set of this process holds the descriptor."""
    for number in os.listdir("/proc/self/fdinfo"):
        try:
            with open(f"/proc/self/fdinfo/{number}") as info:
                lines = [line.split() for line in info]
        except OSError:
            continue
        if any(words[:2] == ["tfd:", str(fd)] for words in lines):
            return True
    return False


class Serving:
    """The cases of `serve`, each in a run of its own."""

    library = None
    adapter = None
    options = Inside.options
    open_group = Inside.open_group
    wait_all_tasks_blocked = None
    make_server = AdapterConformance.make_server
    teardown_method = AdapterConformance.teardown_method
    ask = AdapterConformance.ask

    def setup_method(self):
        self.open = ExitStack()
        self.directory = self.open.enter_context(tempfile.TemporaryDirectory(prefix="ipcpoll-"))
        self.servers = 0

    def stop_loop(self):
        raise AssertionError("no case stops the loop by a command")

    def run(self, main):
        """Run `main` with the library; what does not end is cancelled, and has failed."""

        async def bounded():
            with self.library.fail_after(testing.PATIENCE):
                return await main()

        result = self.library.run(bounded, **self.options)
        gc.collect()  # a coroutine that nobody awaited says so, and warnings are errors
        return result

    async def in_thread(self, function, *args):
        """Run a client. It is left behind when the case has failed."""
        await self.library.to_thread.run_sync(function, *args, abandon_on_cancel=True)

    def nothing_is_left(self, server, fd):
        assert server.attachments == set()
        assert not watched(fd), "it is still in the loop's books"

    def test_served_until_it_is_closed_by_another_task(self):
        server, ctx = self.make_server()
        fd = server.fileno()
        returned = []

        async def serve():
            returned.append(await self.adapter.serve(server, ctx))

        async def main():
            async with self.open_group() as group:
                group.start_soon(serve)
                await self.in_thread(self.ask, server)
                await self.wait_all_tasks_blocked()
                assert watched(fd)
                assert returned == []
                server.close()
                self.nothing_is_left(server, fd)

        self.run(main)
        assert returned == [None]
        assert ctx.log == list(range(10))

    def test_closed_in_a_command(self):
        """The call is answered, and `serve` returns."""
        server, ctx = self.make_server()
        fd = server.fileno()
        ctx.do = server.close

        def ask():
            with Client(server.address, timeout=PATIENCE) as client:
                assert client.call(Do()) == 0

        async def main():
            async with self.open_group() as group:
                group.start_soon(self.adapter.serve, server, ctx)
                await self.in_thread(ask)

        self.run(main)
        assert server.closed
        self.nothing_is_left(server, fd)

    def test_status_of_the_task_is_its_attachment(self):
        """Given when it watches already. To detach it ends `serve`; the server stays open."""
        server, ctx = self.make_server()
        fd = server.fileno()

        async def main():
            async with self.open_group() as group:
                attachment = await group.start(self.adapter.serve, server, ctx)
                assert isinstance(attachment, Attachment)
                assert server.attachments == {attachment}
                await self.in_thread(self.ask, server)
                attachment.pause()
                assert not watched(fd)
                attachment.resume()
                await self.in_thread(self.ask, server)
                attachment.detach()

        self.run(main)
        assert not server.closed
        self.nothing_is_left(server, fd)

    def test_budget_reaches_poll(self):
        fake, ctx = FakePollable(), object()

        async def main():
            fake.ready()
            fake.on_poll = fake.close
            await self.adapter.serve(fake, ctx, max_seconds=0.25)

        self.run(main)
        assert fake.polls == [(ctx, 0.25)]

    def test_cancelled_while_paused(self):
        server, ctx = self.make_server()

        async def main():
            async with self.open_group() as group:
                attachment = await group.start(self.adapter.serve, server, ctx)
                attachment.pause()
                await self.wait_all_tasks_blocked()
                group.cancel_scope.cancel()

        self.run(main)
        assert server.attachments == set()

    @pytest.mark.parametrize("end", ["close", "detach"])
    def test_ended_while_paused(self, end):
        """The task, which waits for `resume`, ends by itself."""
        server, ctx = self.make_server()

        async def main():
            async with self.open_group() as group:
                attachment = await group.start(self.adapter.serve, server, ctx)
                attachment.pause()
                await self.wait_all_tasks_blocked()
                (server.close if end == "close" else attachment.detach)()

        self.run(main)
        assert server.attachments == set()

    def test_cancelled_and_served_again(self):
        """In the same run, and in another one; nothing stays behind in between."""
        server, ctx = self.make_server()
        fd = server.fileno()

        async def main():
            for _ in range(3):
                async with self.open_group() as group:
                    await group.start(self.adapter.serve, server, ctx)
                    await self.in_thread(self.ask, server, 3)
                    group.cancel_scope.cancel()
                assert not server.closed
                self.nothing_is_left(server, fd)

        self.run(main)
        self.run(main)
        assert ctx.log == [0, 1, 2] * 6

    def test_cancelled_in_a_flood(self):
        """Other tasks have their turns in it. What was read is not lost, and served later."""
        server, ctx = self.make_server()
        count = 300
        seen = []

        async def main():
            async with self.open_group() as group:
                await group.start(partial(self.adapter.serve, server, ctx, max_seconds=0))
                while len(ctx.log) < 50:
                    seen.append(len(ctx.log))
                    await self.library.lowlevel.checkpoint()
                group.cancel_scope.cancel()
            assert len(ctx.log) < count
            async with self.open_group() as group:
                await group.start(self.adapter.serve, server, ctx)
                while len(ctx.log) < count:
                    await self.library.lowlevel.checkpoint()
                server.close()

        with Peer(server) as peer:
            peer.send(*(call(number, "Echo", value=number) for number in range(count)))
            self.run(main)
            assert ctx.log == list(range(count))
            assert len(set(seen)) >= 10, "other tasks had no turns"
            answers = [message for message in peer.received() if message[0] is not None]
            assert answers == [[number, 0, number] for number in range(count)]

    def test_work_that_never_ends(self):
        """It neither keeps the other tasks waiting nor the cancellation."""
        fake = FakePollable()
        turns = []

        def count():
            if len(fake.polls) > ENOUGH:
                raise AssertionError("nobody else had a turn")

        fake.on_poll = count
        fake.ready(10 * ENOUGH)

        async def main():
            async with self.open_group() as group:
                await group.start(self.adapter.serve, fake, None)
                for _ in range(20):
                    await self.library.lowlevel.checkpoint()
                    turns.append(len(fake.polls))
                group.cancel_scope.cancel()

        self.run(main)
        assert 0 < turns[-1] < ENOUGH
        fake.close()

    def test_second_task_for_the_same_server(self):
        """It is refused, whichever has its turn just then, and while the first is paused."""
        server, ctx = self.make_server()

        async def main():
            async with self.open_group() as group:
                first = await group.start(self.adapter.serve, server, ctx)
                for _ in range(5):
                    await self.in_thread(self.ask, server)
                    await self.refused(server, ctx, group)
                    assert server.attachments == {first}
                first.pause()
                await self.refused(server, ctx, group)
                assert server.attachments == {first}
                first.detach()
                second = await group.start(self.adapter.serve, server, ctx)
                first.resume()
                await self.in_thread(self.ask, server)
                assert server.attachments == {second}
                server.close()

        self.run(main)

    async def refused(self, server, ctx, group):
        already = "attached to this loop already"
        with pytest.raises(UsageError, match=already):
            await group.start(self.adapter.serve, server, ctx)
        with pytest.raises(UsageError, match=already):
            self.adapter.attach(server, ctx, group)

    def test_closed_before(self):
        server, ctx = self.make_server()
        server.close()

        async def main():
            with pytest.raises(UsageError, match="closed"):
                await self.adapter.serve(server, ctx)
            async with self.open_group() as group:
                with pytest.raises(UsageError, match="closed"):
                    await group.start(self.adapter.serve, server, ctx)

        self.run(main)

    def test_exception_of_poll_comes_out(self):
        """As it is, and not in a group. The pollable can be served again."""
        fake = FakePollable()
        fake.error = ZeroDivisionError()
        fake.ready(2)

        async def main():
            with pytest.raises(ZeroDivisionError):
                await self.adapter.serve(fake, None)
            assert fake.attachments == set()
            fake.on_poll = fake.close
            await self.adapter.serve(fake, None)

        self.run(main)
        assert len(fake.polls) == 2

    @pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
    def test_wish_to_end_leaves_the_run(self, exception):
        """The server is open, and is served in another run."""
        server, ctx = self.make_server()

        def end():
            raise exception

        ctx.do = end
        with Client(server.address, timeout=PATIENCE) as client:
            client.notify(Do())
            with pytest.raises(exception):
                self.run(lambda: self.adapter.serve(server, ctx))
        self.nothing_is_left(server, server.fileno())
        self.served_again(server)

    def test_control_c_while_it_waits(self):
        server, ctx = self.make_server()
        ended = []

        async def interrupt():
            await self.wait_all_tasks_blocked()
            signal.raise_signal(signal.SIGINT)

        async def main():
            async with self.open_group() as group:
                await group.start(self.adapter.serve, server, ctx)
                group.start_soon(interrupt)

        try:
            self.library.run(main, **self.options)
        except* KeyboardInterrupt:  # trio has it in a group
            ended.append(True)
        assert ended == [True]
        self.nothing_is_left(server, server.fileno())
        self.served_again(server)

    def served_again(self, server):
        ctx = Context()

        async def main():
            async with self.open_group() as group:
                self.adapter.attach(server, ctx, group)
                await self.in_thread(self.ask, server)
                server.close()

        self.run(main)
        assert ctx.log == list(range(10))

    def test_run_that_ends_before_the_server_is_closed(self):
        """Whatever is done to the attachment afterwards."""
        server, ctx = self.make_server()
        found = []

        async def main():
            async with self.open_group() as group:
                found.append(self.adapter.attach(server, ctx, group))
                await self.in_thread(self.ask, server)
                group.cancel_scope.cancel()

        self.run(main)
        [attachment] = found
        assert not attachment.attached
        attachment.resume()
        attachment.pause()
        attachment.detach()
        self.served_again(server)

    def test_run_that_ends_in_the_midst(self):
        """Attached, and the library's loop is gone without a word to its tasks."""
        server, ctx = self.make_server()

        async def main():
            return self.adapter.attach(server, ctx, Never())

        attachment = self.run(main)
        assert attachment.attached
        server.close()
        assert not attachment.attached

    def test_group_that_takes_no_more_tasks(self):
        """The server is as before, and no coroutine is left that nobody awaited."""
        server, ctx = self.make_server()

        async def main():
            async with self.open_group() as group:
                pass
            with pytest.raises(RuntimeError):
                self.adapter.attach(server, ctx, group)
            assert server.attachments == set()

        self.run(main)

    def test_detached_or_cancelled_before_the_task_began(self):
        server, ctx = self.make_server()

        async def main():
            async with self.open_group() as group:
                self.adapter.attach(server, ctx, group).detach()
            async with self.open_group() as group:
                self.adapter.attach(server, ctx, group)
                group.cancel_scope.cancel()
            self.nothing_is_left(server, server.fileno())

        self.run(main)

    def test_forked_child(self):
        """In the child `serve` returns, and touches nothing; the parent is served."""
        server, ctx = self.make_server()
        children = []
        ctx.do = lambda: children.append(os.fork())

        async def serve():
            await self.adapter.serve(server, ctx)
            if children == [0]:
                os._exit(7)

        async def main():
            async with self.open_group() as group:
                group.start_soon(serve)
                await self.in_thread(ask)
                assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 7
                await self.in_thread(self.ask, server)
                server.close()

        def ask():
            with Client(server.address, timeout=PATIENCE) as client:
                client.call(Do())

        self.run(main)


class Never:
    """A group whose tasks never begin."""

    def start_soon(self, function, *, name):
        pass


# ---------------------------------------------------------------------------------------------
# Broken attachments, each with the case that finds it out


def never_wakes(monkeypatch, attachment):
    """The descriptor is closed, and the task waits on. Cancelled, it leaves it in the books."""
    monkeypatch.setattr(attachment, "_wake", lambda self: None)


def never_gives_way(monkeypatch, attachment):
    """It asks the kernel, and not the library."""

    async def readable(self):
        return bool(select.select([self._fd], [], [])[0])

    monkeypatch.setattr(attachment, "_readable", readable)


def polls_until_nothing_is_left(monkeypatch, attachment):
    def serve(self):
        while TaskAttachment._serve(self):
            pass

    monkeypatch.setattr(attachment, "_serve", serve)


def never_detaches(monkeypatch, attachment):
    """The task ends, and the pollable does not know."""

    async def run(self):
        while await self._readable():
            self._serve()

    monkeypatch.setattr(attachment, "run", run)
    monkeypatch.setattr(attachment, "__exit__", lambda self, *_: None)


def sleeps_on(monkeypatch, attachment):
    """What waits to be resumed is not told that it never will be."""
    monkeypatch.setattr(attachment, "detach", Attachment.detach)


def swallows_what_poll_raises(monkeypatch, attachment):
    monkeypatch.setattr(attachment, "_report", Attachment._report)


class Bites:
    """`Serving` finds them out."""

    suite = Serving
    attachment = None

    @pytest.mark.parametrize(
        ("breakage", "case", "arguments"),
        [
            (never_wakes, "test_served_until_it_is_closed_by_another_task", []),
            (never_gives_way, "test_work_that_never_ends", []),
            (polls_until_nothing_is_left, "test_work_that_never_ends", []),
            (never_detaches, "test_cancelled_and_served_again", []),
            (sleeps_on, "test_ended_while_paused", ["close"]),
            (swallows_what_poll_raises, "test_exception_of_poll_comes_out", []),
        ],
    )
    def test_broken_attachment_is_found_out(self, monkeypatch, breakage, case, arguments):
        breakage(monkeypatch, self.attachment)
        self.fails(monkeypatch, case, *arguments)

    def fails(self, monkeypatch, case, *arguments, match=None):
        """Run a case that hangs, fails or raises."""
        monkeypatch.setattr(sys, "excepthook", lambda *_: None)
        monkeypatch.setattr(testing, "PATIENCE", 0.5)  # what hangs is found out soon
        suite = self.suite()
        suite.setup_method()
        try:
            with pytest.raises(Exception, match=match):
                getattr(suite, case)(*arguments)
        finally:
            suite.teardown_method()
