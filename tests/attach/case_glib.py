"""The conformance suite in GLib: in the default context, and in one of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest
from clients import ClientCases
from glib_conformance import GLib, GLibConformance

from ipcpoll import Client
from ipcpoll.testing import PATIENCE, Do, FakePollable, polled

EXITS = """
import sys, warnings
from gi.repository import GLib
from ipcpoll.adapters import glib_loop
from ipcpoll.testing import FakePollable
fake = FakePollable()
fake.on_poll = lambda: sys.exit(7)
glib_loop.attach(fake, None)
fake.ready()
GLib.MainLoop().run()
"""


class TestGLib(ClientCases, GLibConformance):
    def test_keyboard_interrupt_ends_neither_loop_nor_watch(self):
        """As in any callback that PyGObject calls; but those lose their watch."""
        server, ctx = self.make_server()
        self.attach(server, ctx)
        error = KeyboardInterrupt()

        def interrupt():
            raise error

        ctx.do = interrupt
        with Client(server.address, timeout=PATIENCE) as client:
            self.run(lambda: client.notify(Do()), seconds=0.05)
        self.run(self.asking(server))
        assert self.errors == [error]

    def test_busy_source_of_the_program(self):
        """It is behind descriptors and before idle work: only work that was left waits for it."""
        fake = FakePollable()
        self.attach(fake, None)
        fake.ready(3)
        self.run(seconds=0.05, until=polled(fake, times=3))
        busy = GLib.idle_add(lambda: True, priority=GLib.PRIORITY_HIGH_IDLE)
        fake.ready()
        self.run(until=polled(fake, times=4))
        GLib.source_remove(busy)
        fake.close()

    def test_pollable_that_is_closed_and_knows_no_attachments(self):
        """Outside its poll, and nobody detached it: GLib tells, and the watch ends."""
        fake = FakePollable()
        del fake.attachments
        attachment = self.attach(fake, None)
        self.call_later(0, fake.forget)
        self.run(until=polled(fake))
        assert not attachment.attached
        assert len(fake.polls) == 1

    def test_exit_ends_the_process(self):
        """As in any callback that PyGObject calls."""
        done = subprocess.run([sys.executable, "-c", EXITS], check=False, timeout=PATIENCE)
        assert done.returncode == 7

    def test_excepthook_that_raises(self, capsys):
        """Told to the interpreter's own; the watch stays."""
        fake = FakePollable()
        self.attach(fake, None)

        def raising(*_):
            raise LookupError("the hook's own")

        sys.excepthook = raising
        for times in (1, 2):
            fake.error = ZeroDivisionError("the poll's")
            fake.ready()
            self.run(until=polled(fake, times=times))
        fake.close()
        told = capsys.readouterr().err
        assert told.count("LookupError: the hook's own") == 2
        assert told.count("ZeroDivisionError: the poll's") == 2

    @pytest.mark.parametrize("name", ["pause", "detach"])
    def test_no_source_is_left(self, name):
        fake = FakePollable()
        attachment = self.attach(fake, None)
        source = attachment._source
        for _ in range(2):
            getattr(attachment, name)()
        assert source.is_destroyed()
        fake.close()


class TestGLibContext(GLibConformance):
    can_end = False

    def open_loop(self):
        self.context = GLib.MainContext()
        super().open_loop()
