"""The stage of stage.py in a window of wxPython on GTK: other processes change it meanwhile."""

import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

# Neither wx nor what PyGObject makes at run time has stubs.
# pyright: reportMissingImports=false, reportMissingTypeStubs=false, reportAttributeAccessIssue=false
import shell
import stage
import village

import ipcpoll

with shell.needs("apt-get install python3-wxgtk4.0 python3-gi"):
    import wx
    from gi.repository import GLib

    from ipcpoll.adapters import glib_loop

FRAME_MILLISECONDS = 16


class Window:
    """Draws a stage, and a lamp that never stands still."""

    def __init__(self, app: Any, show: stage.Stage) -> None:
        self.app, self.show = app, show
        self.drawn = -1
        self.interrupted = False
        style = wx.DEFAULT_FRAME_STYLE & ~wx.RESIZE_BORDER
        self.frame: Any = wx.Frame(None, title="wx stage", pos=(0, 0), style=style)
        self.panel: Any = wx.Panel(self.frame, size=(stage.WIDTH, stage.HEIGHT))
        self.panel.SetBackgroundStyle(wx.BG_STYLE_PAINT)
        self.panel.Bind(wx.EVT_PAINT, self.draw)
        self.timer: Any = wx.Timer(self.frame)
        self.frame.Bind(wx.EVT_TIMER, self.next_frame)
        self.frame.Fit()
        self.frame.Show()
        self.next_frame()

    def next_frame(self, *_: object) -> None:
        self.timer.StartOnce(stage.until_next_frame(FRAME_MILLISECONDS))
        self.panel.Refresh()

    def draw(self, _: object) -> None:
        pane: Any = wx.GraphicsContext.Create(wx.AutoBufferedPaintDC(self.panel))

        def ink(colour: str) -> None:
            pane.SetBrush(wx.Brush(colour))

        ink(self.show.colour)
        pane.DrawRectangle(0, 0, stage.WIDTH, stage.HEIGHT)
        for shape in self.show.shapes:
            ink(shape.colour)
            half, size = shape.size / 2, shape.size
            draw = pane.DrawEllipse if isinstance(shape, stage.Circle) else pane.DrawRectangle
            draw(shape.x - half, shape.y - half, size, size)
        font = wx.Font(wx.FontInfo(wx.Size(0, 20)).FaceName("DejaVu Sans"))
        pane.SetFont(font, wx.Colour("white"))
        width, height = pane.GetTextExtent(self.show.caption)
        pane.DrawText(self.show.caption, (stage.WIDTH - width) / 2, stage.HEIGHT - 24 - height / 2)
        ink(stage.lamp())
        pane.DrawEllipse(612, 12, 16, 16)
        self.drawn = self.show.version

    def interrupt(self, *_: object) -> None:
        self.interrupted = True
        self.frame.Close()


@contextmanager
def opened(address: str) -> Generator[Window]:
    if not wx.App.IsDisplayAvailable():
        raise OSError("there is no display")
    show = stage.Stage()
    with ipcpoll.Server(address, stage.Command) as server:
        app: Any = wx.App(clearSigInt=False)
        glib_loop.attach(server, show)
        yield Window(app, show)


def run(address: str) -> None:
    with opened(address) as window:
        # Nothing can be raised through wx: Ctrl-C closes the window.
        signal.signal(signal.SIGINT, window.interrupt)
        window.app.MainLoop()
    if window.interrupted:
        sys.exit(130)


def check() -> None:
    """Let a client draw the scene; the window must have drawn it."""
    with shell.Processes(stage.__file__) as clients, opened(clients.address) as window:
        client = clients.start("scene")
        while client.poll() is None or window.drawn != window.show.version:
            GLib.MainContext.default().iteration(True)
        assert client.returncode == 0
        assert window.show == village.whole_scene()


if __name__ == "__main__":
    shell.CommandLine(__doc__, run, address="stage", check=check).main()
