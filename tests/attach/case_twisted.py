"""The conformance suite in Twisted: the reactor that the environment names.

A process has one reactor for life, and one that was stopped can't be run again. So each case leaves
the reactor by ``crash``, after which it can; that ``stop`` detaches is shown in other processes.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import warnings
from importlib import import_module

import pytest
from attaching import AttachingCases
from clients import ClientCases
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import globalLogPublisher
from zope.interface.verify import verifyObject

REACTOR = os.environ.get("IPCPOLL_REACTOR", "epoll")
with warnings.catch_warnings(action="ignore"):  # an old PyGObject, and Twisted's use of it, warn
    INSTALLER = import_module(f"twisted.internet.{REACTOR}reactor")
LOOP = asyncio.new_event_loop() if REACTOR == "asyncio" else None
INSTALLER.install(*([] if LOOP is None else [LOOP]))

from twisted.internet import reactor  # noqa: E402  # after one was installed
from twisted.internet.task import deferLater  # noqa: E402

from ipcpoll import Client, UsageError  # noqa: E402
from ipcpoll.adapters import twisted_loop  # noqa: E402
from ipcpoll.testing import (  # noqa: E402
    PATIENCE,
    Do,
    FakePollable,
    polled,
)


@pytest.fixture(scope="module", autouse=True)
def reactor_ends():
    """Leave nothing open: warnings are errors."""
    yield
    if LOOP is not None:
        LOOP.close()


class TestTwisted(ClientCases, AttachingCases):
    # asyncio can't be run inside its own callbacks; and GLib, run inside a callback, watches all
    # descriptors but that callback's own.
    can_nest = REACTOR in ("epoll", "poll", "select")
    # Twisted looks a closed descriptor up among the open ones, and the number stays in its books.
    forgets_closed_descriptors = REACTOR != "epoll"

    runs_coroutines = True
    tells_callbacks = True

    async def sleep(self, seconds):
        await deferLater(reactor, seconds)

    def open_loop(self):
        self.failures = []
        globalLogPublisher.addObserver(self.observe)
        self.others = set(reactor.getReaders())

    def observe(self, event):
        if "log_failure" in event:
            self.failures.append(event["log_failure"].value)

    def close_loop(self):
        """Do what a reactor does when it stops: it disconnects every reader."""
        for call in reactor.getDelayedCalls():
            call.cancel()
        reactor.disconnectAll()
        if self.observe in globalLogPublisher._observers:
            globalLogPublisher.removeObserver(self.observe)
        assert set(reactor.getReaders()) == self.others

    def run_loop(self):
        reactor.run(installSignalHandlers=False)

    def stop_loop(self):
        if reactor.running:
            reactor.crash()

    def call_later(self, seconds, function):
        reactor.callLater(seconds, function)

    def attach(self, pollable, ctx, *, max_seconds=None):
        return twisted_loop.attach(pollable, ctx, max_seconds=max_seconds)

    def reported(self):
        return self.failures

    def run_nested(self, seconds):
        over = []
        call = reactor.callLater(seconds, over.append, True)
        while not over:
            reactor.iterate(0.05)
        assert call.called

    # -----------------------------------------------------------------------------------------
    # Beside the suite

    def test_right_reactor(self):
        assert type(reactor).__module__ == INSTALLER.__name__

    def test_given_reactor(self):
        server, ctx = self.make_server()
        attachment = twisted_loop.attach(server, ctx, reactor)
        self.run(self.asking(server))
        assert attachment in reactor.getReaders()

    def test_reader_of_twisted(self):
        server, ctx = self.make_server()
        attachment = self.attach(server, ctx)
        assert verifyObject(IReadDescriptor, attachment)
        assert attachment.logPrefix() == "ipcpoll"
        assert attachment.fileno() >= 0

    def test_server_is_closed(self):
        server, ctx = self.make_server()
        server.close()
        with pytest.raises(UsageError, match="closed"):
            self.attach(server, ctx)

    def test_nothing_stays_in_the_reactor(self):
        """Also after `close` in the midst of the reader's own callback."""
        server, ctx = self.make_server()
        self.attach(server, ctx)
        ctx.do = server.close
        client = self.open.enter_context(Client(server.address, timeout=PATIENCE))
        self.run(lambda: client.notify(Do()), until=lambda: server.closed)
        assert set(reactor.getReaders()) == self.others
        assert self.failures == []

    def test_do_read_returns_none(self):
        """Anything true would be the reason to disconnect."""
        fake = FakePollable()
        attachment = self.attach(fake, None)
        for _ in range(3):
            fake.ready(2)
            assert attachment.doRead() is None
            fake.error = ZeroDivisionError()
            assert attachment.doRead() is None
        fake.close()

    @pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
    def test_wish_to_end_is_logged(self, exception):
        """As from any callback of Twisted. The reactor runs on, and the server is served."""
        server, ctx = self.make_server()
        attachment = self.attach(server, ctx)

        def end():
            raise exception

        ctx.do = end

        def ask():
            with Client(server.address, timeout=PATIENCE) as client:
                client.notify(Do())
            self.ask(server)

        self.run(ask)
        assert attachment.attached
        assert [type(failure) for failure in self.failures] == [exception]

    def test_log_names_the_pollable(self):
        events = []
        globalLogPublisher.addObserver(events.append)
        fake = FakePollable()
        self.attach(fake, None)
        fake.error = ValueError("told")
        fake.ready()
        try:
            self.run(until=polled(fake))
        finally:
            globalLogPublisher.removeObserver(events.append)
        [event] = [event for event in events if "log_failure" in event]
        assert event["what"] is fake
        assert event["log_namespace"] == twisted_loop.__name__
        assert "in poll" in event["log_failure"].getTraceback()
        fake.close()

    def test_disconnected_by_the_reactor(self):
        """It is detached, and can be attached again; no descriptor is lost, and no error told."""
        server, ctx = self.make_server()
        first = self.attach(server, ctx)
        reactor.disconnectAll()
        assert not first.attached
        assert server.attachments == set()
        first.resume()
        first.detach()
        self.attach(server, ctx)
        self.run(self.asking(server))
        assert self.failures == []

    def test_descriptor_closed_behind_the_attachment(self):
        """By a pollable that keeps no attachments. A detach never raises."""
        fake = FakePollable()
        number = fake.fileno()
        attachment = self.attach(fake, None)
        fake.attachments.clear()
        fake.close()
        attachment.detach()
        assert not attachment.attached
        if REACTOR == "epoll":
            reactor._reads.discard(number)  # there it stays for ever: nobody closes first
        assert set(reactor.getReaders()) == self.others

    def test_low_copy_in_the_select_reactor_alone(self, monkeypatch):
        """Others take the descriptor itself. A refused attach leaves nothing behind."""
        monkeypatch.setattr("ipcpoll._attach.attachment.SELECT_LIMIT", 1)
        fake = FakePollable()
        if REACTOR == "select":
            before = len(os.listdir("/proc/self/fd"))
            with pytest.raises(OSError, match="no lower one is free"):
                self.attach(fake, None)
            assert len(os.listdir("/proc/self/fd")) == before
            assert fake.attachments == set()
        else:
            assert self.attach(fake, None).fileno() == fake.fileno()
        fake.close()


# ---------------------------------------------------------------------------------------------
# In processes of their own


def in_a_process(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program under this module's reactor, which it finds installed."""
    installs = f"""
import sys, warnings
with warnings.catch_warnings(action="ignore"):
    from {INSTALLER.__name__} import install
warnings.simplefilter("error")
"""
    if REACTOR == "asyncio":
        installs += "import asyncio; loop = asyncio.new_event_loop(); install(loop)\n"
    else:
        installs += "install()\n"
    return subprocess.run(
        [sys.executable, "-c", installs + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_reactor_stops_before_the_server_is_closed(tmp_path):
    """A real stop: the attachment is detached, nothing is logged, the server closes."""
    done = in_a_process(f"""
        from twisted.internet import reactor
        from twisted.logger import globalLogPublisher
        globalLogPublisher.addObserver(lambda event: print("logged", event.get("log_failure")))
        import ipcpoll
        from ipcpoll.adapters import twisted_loop
        from ipcpoll.testing import COMMANDS, Context, Do
        server = ipcpoll.Server({str(tmp_path / "a.sock")!r}, COMMANDS)
        ctx = Context(do=reactor.stop)
        attachment = twisted_loop.attach(server, ctx)
        client = ipcpoll.Client(server.address)
        reactor.callWhenRunning(lambda: client.notify(Do()))
        reactor.run()
        assert not attachment.attached and server.attachments == set() and not server.closed
        attachment.resume(); attachment.pause(); attachment.detach()
        client.close()
        server.close()
        print("closed")
        if {REACTOR == "asyncio"}: loop.close()
    """)
    lines = [line for line in done.stdout.splitlines() if line != "logged None"]
    assert (done.returncode, lines, done.stderr) == (0, ["closed"], "")


def test_import_installs_no_reactor():
    """Which reactor there is to be is the program's to say, before or after."""
    done = subprocess.run(
        [
            sys.executable,
            "-Werror",
            "-c",
            "import sys, ipcpoll.adapters.twisted_loop; "
            "assert 'twisted.internet.reactor' not in sys.modules",
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
