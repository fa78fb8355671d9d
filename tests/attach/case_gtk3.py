"""The conformance suite in GTK 3, with a real window."""

from __future__ import annotations

from glib_conformance import GLibConformance, gtk
from redraws import RedrawConformance, colour

Gtk, Gdk = gtk("3.0")


class TestGtk3(GLibConformance, RedrawConformance):
    def open_loop(self):
        super().open_loop()
        self.colour = Gdk.RGBA()
        self.window = Gtk.Window(decorated=False)
        self.window.move(0, 0)
        area = Gtk.DrawingArea()
        area.set_size_request(200, 200)
        area.connect("draw", self.draw)
        self.window.add(area)
        self.window.show_all()

    def draw(self, _, cairo):
        Gdk.cairo_set_source_rgba(cairo, self.colour)
        cairo.paint()

    def show(self, number):
        self.colour.parse(colour(number))
        self.window.queue_draw()

    def close_loop(self):
        self.window.destroy()
        super().close_loop()

    def run_nested(self, seconds):
        dialog = Gtk.Dialog(transient_for=self.window, modal=True)
        self.call_later(seconds, lambda: dialog.response(Gtk.ResponseType.OK))
        dialog.run()
        dialog.destroy()
