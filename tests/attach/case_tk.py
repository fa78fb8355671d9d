"""The conformance suite in Tk, with a real window, and what only Tk can do wrong."""

from __future__ import annotations

import os
import resource
import threading
import tkinter
from contextlib import ExitStack

import pytest
from clients import ClientCases
from redraws import RedrawConformance, colour

from ipcpoll import Client, UsageError, testing
from ipcpoll.adapters import tk_loop
from ipcpoll.testing import PATIENCE, Do, Echo, FakePollable, polled


class TestTk(ClientCases, RedrawConformance):
    can_nest = True
    tells_callbacks = True

    def open_loop(self):
        self.root = tkinter.Tk()
        self.root.geometry("200x200+0+0")
        self.label = tkinter.Label(self.root)
        self.label.pack(fill="both", expand=True)
        self.errors = []
        self.root.report_callback_exception = lambda _, error, __: self.errors.append(error)
        self.alive = True

    def close_loop(self):
        if self.alive:
            self.alive = False
            for timer in self.root.tk.splitlist(self.root.tk.call("after", "info")):
                self.root.after_cancel(timer)  # or it would come in the next case's loop
            self.root.destroy()

    def run_loop(self):
        self.root.mainloop()

    def stop_loop(self):
        self.root.quit()

    def call_later(self, seconds, function):
        self.root.after(round(seconds * 1000), function)

    def attach(self, pollable, ctx, *, max_seconds=None):
        return tk_loop.attach(pollable, ctx, self.root, max_seconds=max_seconds)

    def run_nested(self, seconds):
        dialog = tkinter.Toplevel(self.root)
        dialog.after(round(seconds * 1000), dialog.destroy)
        dialog.wait_window()

    def reported(self):
        return self.errors

    def show(self, number):
        self.label["background"] = colour(number)

    # The other window

    def test_second_window_of_the_thread(self):
        """Tcl has one list of descriptors for both: the second attachment would end the first."""
        server, ctx = self.make_server()
        other = tkinter.Tk()
        attachment = self.attach(server, ctx)
        with pytest.raises(UsageError, match="attached to this loop already"):
            tk_loop.attach(server, ctx, other)
        other.destroy()
        self.run(self.asking(server))
        assert server.attachments == {attachment}

    # The window's end

    def test_window_destroyed_in_a_command(self):
        """The call is answered, the loop ends, and Tk knows nothing of the server."""
        server, ctx = self.make_server()
        attachment = self.attach(server, ctx)
        ctx.do = self.close_loop
        with Client(server.address, timeout=PATIENCE) as client:
            answers = []
            thread = threading.Thread(target=lambda: answers.append(client.call(Do())))
            thread.start()
            self.run_loop()
            thread.join(PATIENCE)
        assert answers == [0]
        assert not attachment.attached
        assert server.attachments == set()
        self.nobody_is_served_by_a_new_window(server, ctx)

    def test_window_destroyed_by_its_user(self):
        """Not through Python: the window manager asks, and Tk itself destroys."""
        server, ctx = self.make_server()
        attachment = self.attach(server, ctx)
        attachment.pause()
        self.root.after(0, lambda: self.root.tk.call("destroy", "."))
        self.run_loop()
        self.alive = False
        assert not attachment.attached
        attachment.resume()
        self.nobody_is_served_by_a_new_window(server, ctx)

    def test_window_destroyed_behind_the_redraw(self):
        """While the watch is on its way back."""
        fake = FakePollable()
        attachment = self.attach(fake, None)
        fake.on_poll = lambda: self.root.after_idle(self.close_loop)
        fake.ready(5)
        self.run_loop()
        polls = len(fake.polls)
        assert not attachment.attached
        self.nobody_is_served_by_a_new_window(fake, None)
        assert len(fake.polls) == polls
        fake.close()

    def nobody_is_served_by_a_new_window(self, pollable, ctx):
        """The notifier belongs to the thread: it would go on in the next window's loop."""
        self.close_loop()
        self.open_loop()
        if isinstance(pollable, FakePollable):
            pollable.ready()
            self.run(seconds=0.05)
            return
        with Client(pollable.address, timeout=PATIENCE) as client:
            client.notify(Echo(7))
            self.run(seconds=0.05)
        assert 7 not in ctx.log

    def test_destroyed_window_is_refused(self):
        self.close_loop()
        fake = FakePollable()
        with pytest.raises(tkinter.TclError, match="destroyed"):
            self.attach(fake, None)
        assert fake.attachments == set()
        fake.close()

    def test_program_that_sets_the_tags_itself(self):
        """Then nobody tells of the window's end; the server's end is as good."""
        server, ctx = self.make_server()
        attachment = self.attach(server, ctx)
        self.root.bindtags((".", "all"))
        self.close_loop()
        server.close()
        assert not attachment.attached

    def test_other_windows_may_be_destroyed(self):
        server, ctx = self.make_server()
        attachment = self.attach(server, ctx)
        self.label.destroy()
        tkinter.Toplevel(self.root).destroy()
        self.root.update()
        assert attachment.attached
        self.run(self.asking(server))

    def test_bindings_of_the_program_are_left_alone(self):
        """Its own, and those of another attachment."""
        destroyed = []
        tags = self.root.bindtags()
        self.root.bind("<Destroy>", lambda _: destroyed.append("before"))
        fakes = [FakePollable(), FakePollable()]
        first, second = [self.attach(fake, None) for fake in fakes]
        first.detach()
        assert len(self.root.bindtags()) == len(tags) + 1
        self.root.after_idle(self.close_loop)
        self.run_loop()
        assert destroyed[-1] == "before"
        assert not second.attached
        for fake in fakes:
            fake.close()

    def test_nothing_is_left_in_the_window(self):
        """Attached and detached, again and again."""
        fake = FakePollable()
        tags, commands = self.root.bindtags(), self.root.tk.call("info", "commands")
        for _ in range(10):
            self.attach(fake, None).detach()
        assert self.root.bindtags() == tags
        assert self.root.tk.call("info", "commands") == commands
        fake.close()
        with pytest.raises(UsageError, match="closed"):
            self.attach(fake, None)
        assert self.root.bindtags() == tags

    # The step behind the redraw

    @pytest.mark.parametrize("names", [["pause"], ["detach"], ["pause", "resume"]])
    def test_while_the_watch_is_behind_the_redraw(self, names):
        fake = FakePollable()
        attachment = self.attach(fake, None)
        calls = self.calls_of(attachment)

        def behind():
            fake.on_poll = lambda: None
            for name in names:
                getattr(attachment, name)()

        fake.on_poll = lambda: self.root.after_idle(behind)  # before its own event
        fake.ready(3)
        times = 3 if "resume" in names else 1
        self.run(seconds=0.05, until=polled(fake, times=times))
        assert len(fake.polls) == times
        assert len(calls) == len(fake.polls) - 1, "Tk watches what was taken out"
        assert attachment.attached is ("detach" not in names)
        if fake.work:
            fake.poll(None)
            fake.poll(None)
        fake.close()
        assert self.errors == []

    def test_nested_loop_that_never_is_idle(self):
        """The watch steps back inside, and once more outside: one event is to be cancelled."""
        fake = FakePollable()
        attachment = self.attach(fake, None)
        calls = self.calls_of(attachment)

        def outer():
            fake.on_poll = lambda: None
            self.root.after_idle(attachment.detach)  # before the watch comes back
            self.root.tk.dooneevent(tkinter._tkinter.FILE_EVENTS)

        fake.on_poll = outer
        fake.ready(5)
        self.run(seconds=0.05, until=polled(fake, times=2))
        assert len(fake.polls) == 2
        assert calls == [], "Tk watches what was taken out"
        fake.close()

    def calls_of(self, attachment):
        """Return a list that grows when Tk calls for it, once the watch has stepped back."""
        calls, ready = [], attachment._ready
        attachment._ready = lambda *event: (calls.append(event), ready(*event))
        return calls

    def test_adapter_that_does_not_step_back_is_found_out(self, monkeypatch):
        """By the suite's own case: Tk would not redraw."""
        monkeypatch.setattr(testing, "PATIENCE", 1.6)
        monkeypatch.setattr(tk_loop.TkAttachment, "_ready", lambda self, *_: self._serve())
        with pytest.raises(AssertionError, match=r"the screen changed only|did not end"):
            self.test_flood_does_not_stop_the_redraws()

    # What comes out of a command

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
    def test_interruption_ends_the_loop_and_not_the_watch(self, kind):
        server, ctx = self.make_server()
        self.attach(server, ctx)

        def interrupt():
            raise kind

        ctx.do = interrupt
        with Client(server.address, timeout=PATIENCE) as client:
            client.notify(Do())
            with pytest.raises(kind):
                self.run_loop()
        self.run(self.asking(server))
        assert self.errors == []

    def test_no_low_descriptor_is_free(self):
        """Tcl would end the process."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 2000), hard), hard))
        with ExitStack() as stack:
            stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
            while not (used := [os.open(os.devnull, os.O_RDONLY)])[-1] > 1023:
                stack.callback(os.close, used[-1])
            stack.callback(os.close, used[-1])
            fake = FakePollable()
            stack.callback(fake.close)
            tags = self.root.bindtags()
            with pytest.raises(OSError, match="1024"):
                self.attach(fake, None)
            assert self.root.bindtags() == tags
            assert fake.attachments == set()
