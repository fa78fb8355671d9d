"""For programs with tkinter: the window's own loop answers other processes.

::

    root = tkinter.Tk()
    with ipcpoll.Server("stage", Paint | Clear) as server:
        tk_loop.attach(server, stage, root)
        root.mainloop()

It also goes on in ``wait_window``, in dialogs, in ``update`` and at the prompt of an interactive
Python, wherever Tk's events are handled.
"""

from __future__ import annotations

import tkinter
from typing import Any

from ipcpoll import Attachment, Pollable


class TkAttachment(Attachment):
    """Watched by Tk, until it is detached or the window is destroyed.

    A KeyboardInterrupt or SystemExit of a command comes out of ``mainloop``, and the watch stays.
    In a loop inside a callback (``wait_window``, a dialog) that is when the callback has returned;
    in a program that calls ``update`` itself, Tk keeps it for the next ``mainloop``.
    """

    def __init__(
        self, pollable: Pollable, ctx: Any, root: tkinter.Tk, max_seconds: float | None
    ) -> None:
        self._root = root
        self._number = -1
        self._idle = ""  # the event after which Tk watches again
        self._tag = f"ipcpoll-{id(self)}"
        # A tag of its own, not the window's. So children that are destroyed don't count, and
        # binding and unbinding leave the program's own bindings alone.
        self._command = root.bind_class(self._tag, "<Destroy>", lambda _: self.detach())
        root.bindtags((*root.bindtags(), self._tag))
        try:
            super().__init__(pollable, ctx, max_seconds)
        except BaseException:
            self._unbind()
            raise

    def detach(self) -> None:
        """Take the pollable out of the loop for good. It stays open. Idempotent."""
        if self.attached:
            self._unbind()
        super().detach()

    def _unbind(self) -> None:
        root = self._root
        try:
            root.bindtags(tuple(tag for tag in root.bindtags() if tag != self._tag))
            root.unbind_class(self._tag, "<Destroy>")
            root.deletecommand(self._command)
        except tkinter.TclError:
            pass  # the window is destroyed, and took its bindings along

    def _is_inside_loop(self) -> bool:
        return bool(self._home == self._loop_id())  # Tcl keeps a list of descriptors a thread

    def _watch(self) -> None:
        self._number = self._low_descriptor()  # Tcl would end the process
        self._watch_number()

    def _watch_number(self) -> None:
        self._idle = ""
        self._root.tk.createfilehandler(self._number, tkinter.READABLE, self._ready)

    def _unwatch(self) -> None:
        # The handler belongs to the thread, not to the window: this works when that is destroyed.
        self._root.tk.deletefilehandler(self._number)
        if self._idle:
            self._root.after_cancel(self._idle)
            self._idle = ""
        self._close_low_descriptor()

    def _ready(self, *_: object) -> None:
        if self._serve() and not self._idle:
            # Tk redraws when it is idle, which it never is while a descriptor is ready. So the
            # watch steps behind what is to be drawn.
            self._root.tk.deletefilehandler(self._number)
            self._idle = self._root.after_idle(self._watch_number)

    def _report(self, error: Exception) -> None:
        self._root.report_callback_exception(type(error), error, error.__traceback__)


def attach(
    pollable: Pollable, ctx: Any, root: tkinter.Tk, *, max_seconds: float | None = None
) -> TkAttachment:
    """Let Tk poll `pollable` when it has something to do, until `root` is destroyed.

    `ctx` and `max_seconds` are as for ``Server.poll``. An exception of ``poll`` goes to
    ``root.report_callback_exception``, like one of any other callback. Does not block. Call it in
    the thread of `root`. Raises OSError when the descriptor is above 1,023 and there is none below
    (Tcl takes no other), TclError when `root` is destroyed, UsageError when the pollable is closed,
    or attached already in this thread, to whichever window.
    """
    return TkAttachment(pollable, ctx, root, max_seconds)
