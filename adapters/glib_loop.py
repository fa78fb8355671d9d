"""For GTK 3, GTK 4, wxPython on GTK, and every other program with a main loop of GLib.

::

    with ipcpoll.Server("stage", Paint | Clear) as server:
        glib_loop.attach(server, stage)
        application.run()

It also goes on in dialogs that run the loop inside a callback. It needs PyGObject and imports GLib
only: the version of GTK is the program's own choice.
"""

from __future__ import annotations

from typing import Any

# PyGObject makes its modules at run time, and type checkers see none of them.
# pyright: reportMissingImports=false, reportMissingTypeStubs=false, reportAttributeAccessIssue=false
from gi.repository import GLib

from ipcpoll import Attachment, Pollable


class GLibAttachment(Attachment):
    """Watched by a context of GLib.

    A KeyboardInterrupt of a command goes to `sys.excepthook`, and the loop goes on; a SystemExit
    ends the process at once, without the `with` statements around the loop. PyGObject does so with
    any callback. A command that ends the program quits its loop instead. (Ctrl-C in a loop that
    PyGObject runs is no exception of a command: the loop ends, and raises it.)
    """

    def __init__(
        self, pollable: Pollable, ctx: Any, context: Any, max_seconds: float | None
    ) -> None:
        self._context = context
        super().__init__(pollable, ctx, max_seconds)

    def _loop_id(self) -> Any:
        return GLib.MainContext.default() if self._context is None else self._context

    def _is_inside_loop(self) -> bool:
        owner: bool = self._home.is_owner()
        return owner

    def _watch(self) -> None:
        # The channel, not GLib.unix_fd_source_new: the names with unix in them have moved.
        connection: Any = GLib.IOChannel.unix_new(self._fd)
        kinds = GLib.IOCondition
        # NVAL, too: a pollable that was closed and did not detach is then found out, by `_serve`.
        self._source: Any = GLib.io_create_watch(connection, kinds.IN | kinds.NVAL)
        self._source.set_can_recurse(True)  # or a dialog of one command stops all others
        self._source.set_callback(self._ready)
        self._source.attach(self._context)

    def _unwatch(self) -> None:
        self._source.destroy()

    def _ready(self, *_: object) -> bool:
        work_left = False
        try:
            work_left = self._serve()
        except KeyboardInterrupt as error:
            self._tell_excepthook(error)
        if self._watching:
            # GTK redraws at a priority between these two, so never while a descriptor is ready at
            # the first.
            priority = GLib.PRIORITY_DEFAULT_IDLE if work_left else GLib.PRIORITY_DEFAULT
            if self._source.get_priority() != priority:
                self._source.set_priority(priority)
        return True  # anything else ends the watch; `_unwatch` does that


def attach(
    pollable: Pollable, ctx: Any, *, context: Any = None, max_seconds: float | None = None
) -> GLibAttachment:
    """Let a loop of GLib poll `pollable` when it has something to do.

    `context` is the ``GLib.MainContext`` that watches; None: the default one, which GTK uses.
    `ctx` and `max_seconds` are as for ``Server.poll``. An exception of ``poll`` goes to
    `sys.excepthook`. Does not block. Call it in the thread that runs the context. Raises UsageError
    when the pollable is closed, or attached to this context already.
    """
    return GLibAttachment(pollable, ctx, context, max_seconds)
