"""The hooks of the conformance suite that GLib, GTK 3 and GTK 4 have in common."""

from __future__ import annotations

import sys
import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ImportWarning)  # PyGObject's own way to import
    import gi
    from gi.repository import GLib

from ipcpoll.adapters import glib_loop
from ipcpoll.testing import AdapterConformance


def gtk(version):
    """Return Gtk and Gdk of this version; one process has one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportWarning)
        gi.require_version("Gtk", version)
        gi.require_version("Gdk", version)
        from gi.repository import Gdk, Gtk
    return Gtk, Gdk


class GLibConformance(AdapterConformance):
    can_nest = True
    tells_callbacks = True
    context = None

    def open_loop(self):
        self.loop = GLib.MainLoop(self.context)
        self.errors = []
        self.hook = sys.excepthook
        sys.excepthook = lambda _, error, __: self.errors.append(error)

    def close_loop(self):
        sys.excepthook = self.hook

    def run_loop(self):
        self.loop.run()

    def stop_loop(self):
        self.loop.quit()

    def call_later(self, seconds, function):
        def once(*_):
            function()
            return False

        timer = GLib.timeout_source_new(round(seconds * 1000))
        timer.set_callback(once)
        timer.attach(self.context)

    def attach(self, pollable, ctx, *, max_seconds=None):
        return glib_loop.attach(pollable, ctx, context=self.context, max_seconds=max_seconds)

    def run_nested(self, seconds):
        dialog = GLib.MainLoop(self.context)
        self.call_later(seconds, dialog.quit)
        dialog.run()

    def reported(self):
        return self.errors
