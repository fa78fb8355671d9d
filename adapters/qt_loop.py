"""For programs with Qt, in PySide6 or PyQt6: the window's own loop answers other processes.

::

    app = QApplication([])
    with ipcpoll.Server("stage", Paint | Clear) as server:
        qt_loop.attach(server, stage)
        app.exec()

The binding is the one that the program has imported: two in one process don't get along, so none is
imported here. It also goes on in dialogs, and in every other ``QEventLoop``.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

from ipcpoll import Attachment, Pollable, UsageError

# What is of Qt is Any: there are two bindings, and a type checker may have neither.
_BINDINGS = ("PySide6.QtCore", "PyQt6.QtCore")
# Who is attached. PyQt6 shows the garbage collector what its slots hold, and not that Qt holds the
# slots: an attachment that nobody else holds would be cleared under its notifier.
_held: set[Attachment] = set()


class QtAttachment(Attachment):
    """Watched by Qt, until it is detached, or its parent or the application is destroyed.

    Nothing can come out of ``exec``. So a KeyboardInterrupt or SystemExit of a command ends the
    program's loops, dialogs too, as ``QCoreApplication.exit`` does: with 130, or with the code of
    the exit. `sys.excepthook` is told of it, unless it is an exit without a message.
    """

    def __init__(
        self, pollable: Pollable, ctx: Any, qtcore: Any, parent: Any, max_seconds: float | None
    ) -> None:
        self._qtcore, self._parent = qtcore, parent
        # Closures: a bound method is held weakly, and then Qt spins. What is passed on differs.
        self._slot = lambda *_: self._ready()
        self._end = lambda *_: self._parent_ends()
        super().__init__(pollable, ctx, max_seconds)
        _held.add(self)
        parent.destroyed.connect(self._end)

    def detach(self) -> None:
        """Take the pollable out of the loop for good. It stays open. Idempotent."""
        if self.attached:
            with suppress(RuntimeError):  # it is being destroyed
                self._parent.destroyed.disconnect(self._end)
        self._parent_ends()

    def _parent_ends(self) -> None:
        _held.discard(self)
        super().detach()

    def _is_inside_loop(self) -> bool:
        return bool(self._parent.thread() == self._qtcore.QThread.currentThread())

    def _watch(self) -> None:
        kind = self._qtcore.QSocketNotifier.Type.Read
        # The parent owns it. It would else die with its last reference, maybe inside its own slot.
        self._notifier = self._qtcore.QSocketNotifier(self._fd, kind, self._parent)
        self._notifier.activated.connect(self._slot)

    def _unwatch(self) -> None:
        with suppress(RuntimeError):  # it was destroyed with its parent
            self._notifier.setEnabled(False)
            self._notifier.activated.disconnect(self._slot)
            self._notifier.deleteLater()

    def _ready(self) -> None:
        try:
            self._serve()
        except BaseException as error:  # PySide6 would print it, PyQt6 end the process
            code = error.code if isinstance(error, SystemExit) else 130
            number = code & 0xFF if isinstance(code, int) else int(code is not None)
            self._qtcore.QCoreApplication.exit(number)
            if isinstance(code, str) or not isinstance(error, SystemExit):
                with suppress(BaseException):  # a hook that exits: that is under way
                    self._tell_excepthook(error)


def attach(
    pollable: Pollable, ctx: Any, parent: Any = None, *, max_seconds: float | None = None
) -> QtAttachment:
    """Let Qt poll `pollable` when it has something to do.

    `parent` is a QObject of this thread, with which the attachment ends. None: this thread's event
    dispatcher, which ends with the application or the QThread. Where both bindings are loaded it
    says which one is meant. `ctx` and `max_seconds` are as for ``Server.poll``. An exception of
    ``poll`` goes to `sys.excepthook`. Does not block.

    Raises UsageError when no binding is loaded, when the QApplication is not made yet or this is no
    thread of Qt, when `parent` is of another thread, and when the pollable is closed, or attached
    to the loop of this thread already.
    """
    qtcore = _loaded(parent)
    dispatcher = qtcore.QAbstractEventDispatcher.instance()
    if dispatcher is None:
        raise UsageError("Qt has no loop in this thread: make the QApplication before attach()")
    if parent is None:
        parent = dispatcher
    elif parent.thread() != qtcore.QThread.currentThread():
        raise UsageError("attach() belongs into the thread of its parent")
    return QtAttachment(pollable, ctx, qtcore, parent, max_seconds)


def _loaded(parent: Any) -> Any:
    """Return the QtCore that the program has imported."""
    loaded = [sys.modules[name] for name in _BINDINGS if name in sys.modules]
    if not loaded:
        raise UsageError("import PySide6 or PyQt6 before attach(): no Qt is loaded")
    if parent is not None:
        loaded = [qtcore for qtcore in loaded if isinstance(parent, qtcore.QObject)]
        if not loaded:
            raise UsageError(f"the parent must be a QObject of the Qt that is loaded: {parent!r}")
    if len(loaded) > 1:
        raise UsageError("PySide6 and PyQt6 are both loaded: attach() needs a parent")
    return loaded[0]
