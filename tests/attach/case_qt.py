"""The conformance suite in Qt, with a real window, and what only Qt can do wrong.

IPCPOLL_QT names the binding, QT_QPA_PLATFORM where the windows are: offscreen, or xcb, a real
screen.
"""

from __future__ import annotations

import gc
import importlib
import os
import subprocess
import sys
import threading
import types
import weakref

import pytest
from redraws import RedrawConformance, colour

from ipcpoll import Client, UsageError
from ipcpoll.adapters import qt_loop
from ipcpoll.testing import PATIENCE, AdapterConformance, Do, FakePollable

BINDING = os.environ["IPCPOLL_QT"]
OTHER = {"PySide6": "PyQt6", "PyQt6": "PySide6"}[BINDING]
QtCore, QtGui, QtWidgets = (
    importlib.import_module(f"{BINDING}.{name}") for name in ("QtCore", "QtGui", "QtWidgets")
)
destroy = importlib.import_module({"PySide6": "shiboken6", "PyQt6": "PyQt6.sip"}[BINDING]).delete
ON_A_SCREEN = os.environ["QT_QPA_PLATFORM"] == "xcb"

# In a process of its own: what PyQt6 does with an exception that gets out, while nobody has set
# `sys.excepthook`, is to end it.
RAISES = f"""
import sys
from {BINDING}.QtCore import QCoreApplication
from ipcpoll.adapters import qt_loop
from ipcpoll.testing import FakePollable
app = QCoreApplication([])
fake = FakePollable()
qt_loop.attach(fake, None)
def act():
    if len(fake.polls) == 3:
        raise {{ending}}
fake.on_poll = act
fake.error = ZeroDivisionError("the poll's")
fake.ready(3)
print(app.exec())
"""


class Canvas(QtWidgets.QWidget):
    """A window in one colour."""

    def __init__(self):
        super().__init__()
        self.colour = QtGui.QColor("black")
        self.setWindowFlag(QtCore.Qt.WindowType.FramelessWindowHint)
        self.setGeometry(0, 0, 200, 200)

    def paintEvent(self, _):
        painter = QtGui.QPainter(self)
        painter.fillRect(self.rect(), self.colour)
        painter.end()


class TestQt(RedrawConformance if ON_A_SCREEN else AdapterConformance):
    can_nest = True
    tells_callbacks = True

    def open_loop(self):
        self.said = []
        QtCore.qInstallMessageHandler(lambda _, __, text: self.said.append(text))
        self.app = QtWidgets.QApplication([])
        assert self.app.platformName() == os.environ["QT_QPA_PLATFORM"]
        self.window = Canvas()
        self.window.show()
        self.errors = []
        self.hook = sys.excepthook
        sys.excepthook = lambda _, error, __: self.errors.append(error)

    def close_loop(self):
        if self.app is not None:
            sys.excepthook = self.hook
            self.end_application()
            QtCore.qInstallMessageHandler(None)
            # Qt says so when a descriptor is closed that it watches, or a thread is the wrong one.
            assert not [text for text in self.said if text.startswith(("QSocket", "QObject"))]

    def end_application(self):
        destroy(self.window)
        app, self.app, self.window = self.app, None, None
        if BINDING == "PySide6":
            app.shutdown()
        else:
            destroy(app)

    def run_loop(self):
        self.code = self.app.exec()

    def stop_loop(self):
        self.app.exit()  # quit() would close the windows

    def call_later(self, seconds, function):
        QtCore.QTimer.singleShot(round(seconds * 1000), function)

    def attach(self, pollable, ctx, *, max_seconds=None):
        return qt_loop.attach(pollable, ctx, max_seconds=max_seconds)

    def run_nested(self, seconds):
        dialog = QtWidgets.QDialog(self.window)
        self.call_later(seconds, dialog.accept)
        dialog.exec()

    def reported(self):
        return self.errors

    def show(self, number):
        self.window.colour = QtGui.QColor(colour(number))
        self.window.update()

    def run_to_the_end(self):
        """Run until something ends the loop; it must come."""
        self.call_later(PATIENCE, lambda: self.app.exit(-1))
        self.run_loop()
        assert self.code != -1, "the loop did not end"

    # Which binding

    def test_no_binding_is_loaded(self, monkeypatch):
        monkeypatch.delitem(sys.modules, f"{BINDING}.QtCore")
        with pytest.raises(UsageError, match="import PySide6 or PyQt6 before attach"):
            self.attach(FakePollable(), None)

    def test_both_bindings_are_loaded(self, monkeypatch):
        """The parent says which. (The other one is only played: together they break.)"""
        other = types.ModuleType(f"{OTHER}.QtCore")
        other.QObject = type("QObject", (), {})
        monkeypatch.setitem(sys.modules, other.__name__, other)
        fake = FakePollable()
        with pytest.raises(UsageError, match="both loaded: attach\\(\\) needs a parent"):
            self.attach(fake, None)
        qt_loop.attach(fake, None, self.window)
        fake.ready()
        self.run(seconds=0.05)
        fake.close()
        assert len(fake.polls) == 1

    def test_parent_that_is_no_object_of_qt(self):
        fake = FakePollable()
        with pytest.raises(UsageError, match="must be a QObject"):
            qt_loop.attach(fake, None, object())
        fake.close()

    # Where there is a loop

    def test_before_the_application(self):
        """Qt would say a word on standard error, and be deaf for ever."""
        self.end_application()
        fake = FakePollable()
        with pytest.raises(UsageError, match="make the QApplication before"):
            self.attach(fake, None)
        fake.close()
        assert self.said == []

    def test_thread_without_a_loop(self):
        fake, errors = FakePollable(), []

        def attach():
            try:
                self.attach(fake, None)
            except UsageError as error:
                errors.append(str(error))

        thread = threading.Thread(target=attach)
        thread.start()
        thread.join()
        fake.close()
        assert "no loop in this thread" in errors[0]

    def test_thread_with_a_loop_of_its_own(self):
        """A QThread serves its own server; an object of another thread is no parent there."""
        test = self

        class Thread(QtCore.QThread):
            def run(self):
                fake = FakePollable()
                with pytest.raises(UsageError, match="thread of its parent"):
                    qt_loop.attach(fake, None, test.window)
                attachment = qt_loop.attach(fake, None)
                fake.on_poll = lambda: fake.work or self.exit()
                fake.ready(3)
                self.exec()
                seen.append((len(fake.polls), attachment.attached))
                fake.close()

        seen = []
        thread = Thread()
        thread.finished.connect(self.app.exit)
        thread.start()
        self.run_to_the_end()
        assert thread.wait(round(PATIENCE * 1000))
        assert seen == [(3, True)]

    def test_parents_in_one_thread_are_one_loop(self):
        fake = FakePollable()
        attachment = self.attach(fake, None)
        with pytest.raises(UsageError, match="attached to this loop already"):
            qt_loop.attach(fake, None, self.window)
        attachment.detach()
        qt_loop.attach(fake, None, self.window)
        fake.ready()
        self.run(seconds=0.05)
        fake.close()
        assert len(fake.polls) == 1

    # How long it lives

    def test_application_destroyed_first(self):
        """That ends the attachment; the next application knows nothing of it."""
        server, ctx = self.make_server()
        watched, paused = self.attach(server, ctx), self.attach(FakePollable(), None)
        paused.pause()
        self.run(self.asking(server))
        self.end_application()
        assert not watched.attached
        assert not paused.attached
        paused.resume()
        paused._pollable.close()
        self.open_loop()
        self.attach(server, ctx)
        self.run(self.asking(server))
        server.close()

    @pytest.mark.parametrize("how", [destroy, lambda window: window.deleteLater()])
    def test_parent_destroyed_in_a_command(self, how):
        """The call is answered, and Qt knows nothing of the server."""
        server, ctx = self.make_server()
        window = QtWidgets.QWidget()
        attachment = qt_loop.attach(server, ctx, window)
        ctx.do = lambda: how(window)
        with Client(server.address, timeout=PATIENCE) as client:
            self.run(lambda: self._expect(client, 0), seconds=0.02)
        assert not attachment.attached
        assert server.attachments == set()
        self.attach(server, ctx)
        self.run(self.asking(server))

    def test_paused_while_its_parent_is_destroyed(self):
        fake, window = FakePollable(), QtWidgets.QWidget()
        attachment = qt_loop.attach(fake, None, window)
        attachment.pause()
        destroy(window)
        assert not attachment.attached
        attachment.resume()
        fake.close()

    def test_nobody_in_the_program_holds_anything(self):
        """Qt does, until the end; PyQt6 lets go at the latest when the loop runs again."""
        fake = FakePollable()
        attachment, pollable, polls = weakref.ref(self.attach(fake, None)), weakref.ref(fake), 0
        for _ in range(2):
            fake.ready()
            del fake
            gc.collect()
            self.run(seconds=0.03)
            fake, polls = pollable(), polls + 1
            assert len(fake.polls) == polls
        fake.close()
        del fake
        self.run(seconds=0.03)
        gc.collect()
        assert (attachment(), pollable()) == (None, None)

    @pytest.mark.parametrize("name", ["pause", "detach"])
    def test_descriptor_is_let_go_at_once(self, name):
        """Not when the loop runs again: it may be closed by then."""
        fake = FakePollable()
        attachment = self.attach(fake, None)
        notifier = attachment._notifier
        assert notifier.isEnabled()
        for _ in range(2):
            getattr(attachment, name)()
        assert not notifier.isEnabled()
        fake.close()

    def test_nothing_is_left_in_qt(self):
        """Attached, paused and detached, again and again."""
        fake = FakePollable()

        def notifiers():
            return len(self.window.findChildren(QtCore.QSocketNotifier))

        for _ in range(10):
            attachment = qt_loop.attach(fake, None, self.window)
            attachment.pause()
            attachment.resume()
            attachment.detach()
        self.run(seconds=0.02)
        assert notifiers() == 0
        fake.close()
        with pytest.raises(UsageError, match="closed"):
            qt_loop.attach(fake, None, self.window)
        assert notifiers() == 0

    # Windows that close

    def test_last_window_closed(self):
        """The loop ends then, unless the program says otherwise; the attachment stays."""
        server, ctx = self.make_server()
        attachment = self.attach(server, ctx)
        ctx.do = self.window.close
        with Client(server.address, timeout=PATIENCE) as client:
            answers = []
            thread = threading.Thread(target=lambda: answers.append(client.call(Do())))
            thread.start()
            self.run_to_the_end()
            thread.join(PATIENCE)
        assert answers == [0]
        assert attachment.attached
        self.app.setQuitOnLastWindowClosed(False)
        self.window.show()
        ctx.do = self.window.close
        with Client(server.address, timeout=PATIENCE) as client:
            self.run(lambda: self._expect(client, 0))
        self.run(self.asking(server), seconds=0.05)

    def test_dialog_of_a_command_is_the_only_window(self):
        """A program in the tray: it goes on where it has told Qt so, and ends otherwise."""
        self.window.hide()
        for quits in (False, True):
            server, ctx = self.make_server()
            self.app.setQuitOnLastWindowClosed(quits)
            self.attach(server, ctx)
            inside = []

            def dialog(ctx=ctx, inside=inside):
                message = QtWidgets.QMessageBox()
                ctx.do = lambda: inside.append(message.isVisible()) or message.accept()
                message.exec()

            ctx.do = dialog
            with Client(server.address, timeout=PATIENCE) as first:
                first.notify(Do())
                with Client(server.address, timeout=PATIENCE) as second:
                    second.notify(Do())
                    if quits:
                        self.run_to_the_end()
                    else:
                        self.run(self.asking(server), seconds=0.05)
            assert inside == [True]
            server.close()

    # What comes out of a command

    @pytest.mark.parametrize(
        ("error", "code", "told"),
        [
            (KeyboardInterrupt(), 130, True),
            (SystemExit(), 0, False),
            (SystemExit(7), 7, False),
            (SystemExit("a message"), 1, True),
        ],
        ids=repr,
    )
    def test_interruption_ends_the_loops_and_not_the_watch(self, error, code, told):
        """Dialogs too."""
        server, ctx = self.make_server()
        self.attach(server, ctx)

        def interrupt():
            raise error

        def dialog():
            ctx.do = interrupt
            self.run_nested(PATIENCE)

        for first in (interrupt, dialog):
            ctx.do = first
            self.errors.clear()
            with Client(server.address, timeout=PATIENCE) as one:
                one.notify(Do())
                with Client(server.address, timeout=PATIENCE) as two:
                    if first is dialog:
                        two.notify(Do())
                    self.run_to_the_end()
            assert self.code == code
            assert self.errors == ([error] if told else [])
        self.run(self.asking(server))

    def test_excepthook_that_raises(self, capsys):
        """Told to the interpreter's own; the watch stays."""
        fake = FakePollable()
        self.attach(fake, None)

        def raising(*_):
            raise LookupError("the hook's own")

        sys.excepthook = raising
        for _ in range(2):
            fake.error = ZeroDivisionError("the poll's")
            fake.ready()
            self.run(seconds=0.03)
        assert len(fake.polls) == 2
        fake.close()
        told = capsys.readouterr().err
        assert told.count("LookupError: the hook's own") == 2
        assert told.count("ZeroDivisionError: the poll's") == 2

    @pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
    def test_excepthook_that_ends_the_program(self, error):
        """As those do that show the user a last window."""
        fake = FakePollable()
        self.attach(fake, None)

        def interrupt():
            raise error

        def ending(*_):
            sys.exit(9)

        sys.excepthook = ending
        fake.on_poll = interrupt
        fake.ready()
        self.run_to_the_end()
        assert self.code == (9 if error is ZeroDivisionError else 130)
        fake.close()

    @pytest.mark.parametrize(("ending", "code"), [("SystemExit(3)", 3), ("KeyboardInterrupt", 130)])
    def test_nobody_has_set_an_excepthook(self, ending, code):
        """The traceback is on standard error, and Qt has seen nothing."""
        done = subprocess.run(
            [sys.executable, "-c", RAISES.format(ending=ending)],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert (done.returncode, done.stdout) == (0, f"{code}\n")
        assert "ZeroDivisionError: the poll's" in done.stderr
