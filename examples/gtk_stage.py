"""The stage of stage.py in a window of GTK 4: other processes change it, and it stays fluid."""

import math
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

# PyGObject makes its modules at run time, and type checkers see none of them.
# pyright: reportMissingImports=false, reportMissingTypeStubs=false, reportAttributeAccessIssue=false
import shell
import stage
import village

import ipcpoll

with shell.needs("apt-get install python3-gi python3-gi-cairo gir1.2-gtk-4.0"):
    import gi

    gi.require_version("Gtk", "4.0")
    gi.require_version("Gdk", "4.0")
    from gi.repository import Gdk, GLib, Gtk

    from ipcpoll.adapters import glib_loop


class Window:
    """Draws a stage, and a lamp that never stands still."""

    def __init__(self, show: stage.Stage) -> None:
        self.show = show
        self.drawn = -1
        self.loop: Any = GLib.MainLoop()
        self.area: Any = Gtk.DrawingArea(content_width=stage.WIDTH, content_height=stage.HEIGHT)
        self.area.set_draw_func(self.draw)
        self.area.add_tick_callback(self.frame)
        self.window: Any = Gtk.Window(title="GTK stage", child=self.area, resizable=False)
        self.window.connect("close-request", lambda _: self.loop.quit())
        self.window.present()

    def frame(self, area: Any, _: object) -> bool:
        area.queue_draw()
        return True

    def draw(self, _: object, cairo: Any, width: int, height: int) -> None:
        def ink(colour: str) -> None:
            rgba: Any = Gdk.RGBA()
            rgba.parse(colour)
            Gdk.cairo_set_source_rgba(cairo, rgba)

        ink(self.show.colour)
        cairo.paint()
        for shape in self.show.shapes:
            ink(shape.colour)
            half = shape.size / 2
            if isinstance(shape, stage.Circle):
                cairo.arc(shape.x, shape.y, half, 0, math.tau)
            else:
                cairo.rectangle(shape.x - half, shape.y - half, shape.size, shape.size)
            cairo.fill()
        ink("#ffffff")
        cairo.select_font_face("DejaVu Sans")
        cairo.set_font_size(20)
        extents = cairo.text_extents(self.show.caption)
        cairo.move_to((width - extents.width) / 2, height - 18)
        cairo.show_text(self.show.caption)
        ink(stage.lamp())
        cairo.arc(620, 20, 8, 0, math.tau)
        cairo.fill()
        self.drawn = self.show.version


@contextmanager
def opened(address: str) -> Generator[Window]:
    if Gdk.Display.get_default() is None:
        raise OSError("there is no display")
    show = stage.Stage()
    with ipcpoll.Server(address, stage.Command) as server:
        glib_loop.attach(server, show)
        yield Window(show)


def run(address: str) -> None:
    with opened(address) as window:
        window.loop.run()


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
