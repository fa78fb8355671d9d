"""The conformance suite in GTK 4, with a real window."""

from __future__ import annotations

from glib_conformance import GLibConformance, gtk
from redraws import RedrawConformance, colour

Gtk, Gdk = gtk("4.0")


class TestGtk4(GLibConformance, RedrawConformance):
    def open_loop(self):
        super().open_loop()
        self.colour = Gdk.RGBA()
        self.area = Gtk.DrawingArea(content_width=200, content_height=200)
        self.area.set_draw_func(self.draw)
        self.window = Gtk.Window(decorated=False, child=self.area)
        self.window.present()

    def draw(self, _, cairo, width, height):
        Gdk.cairo_set_source_rgba(cairo, self.colour)
        cairo.paint()

    def show(self, number):
        self.colour.parse(colour(number))
        self.area.queue_draw()

    def close_loop(self):
        self.window.destroy()
        super().close_loop()
