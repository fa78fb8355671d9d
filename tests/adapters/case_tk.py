"""The conformance suite in Tk, with a real window."""

from __future__ import annotations

import tkinter


from ipcpoll.adapters import tk_loop
from ipcpoll.testing import AdapterConformance


class TestTk(AdapterConformance):
    can_nest = True

    def open_loop(self):
        self.root = tkinter.Tk()
        self.errors = []
        self.root.report_callback_exception = lambda _, error, __: self.errors.append(error)
        self.alive = True

    def close_loop(self):
        if self.alive:
            self.alive = False
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
