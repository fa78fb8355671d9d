"""The stage of stage.py in a window of GTK 4: other processes change it, and it stays fluid."""

import math
import sys
import time
from typing import Any

# PyGObject makes its modules at run time, and type checkers see none of them.
# pyright: reportMissingImports=false, reportMissingTypeStubs=false, reportAttributeAccessIssue=false
import gi
import stage

import ipcpoll
from ipcpoll.adapters import glib_loop

gi.require_version("Gtk", "4.0")
gi.require_version("Gdk", "4.0")
from gi.repository import Gdk, GLib, Gtk  # noqa: E402  # the version comes first


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
        bright = stage.lamp(time.monotonic())
        ink(f"#{bright:02x}{bright:02x}40")
        cairo.arc(620, 20, 8, 0, math.tau)
        cairo.fill()
        self.drawn = self.show.version


def check(window: Window, address: str) -> bool:
    """Let a client process draw the scene; return whether the window has drawn it."""
    with stage.checking(address) as client:
        while client.poll() is None or window.drawn != window.show.version:
            GLib.MainContext.default().iteration(True)
    return stage.shows_the_scene(window.show)


def main() -> int:
    arguments = stage.window_arguments(__doc__)
    show = stage.Stage()
    try:
        with stage.serving(arguments) as server:
            if Gdk.Display.get_default() is None:
                raise OSError("there is no display")
            glib_loop.attach(server, show)
            window = Window(show)
            if arguments.check:
                good = check(window, server.address)
                print("the scene is on the stage" if good else "the scene is not on the stage")
                return 0 if good else 1
            window.loop.run()
    except KeyboardInterrupt:
        return 130
    except (ipcpoll.IpcError, OSError, ValueError) as error:
        print(f"gtk_stage.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
