"""wx on GTK: it has no call for descriptors in Python, but GLib below it has."""

import wx
from calc import Add, Stop

import ipcpoll
from ipcpoll.adapters import glib_loop

app = wx.App()
frame = wx.Frame(None, title="served by wx")
frame.Show()
with ipcpoll.Server("calc", Add | Stop) as server:
    glib_loop.attach(server, lambda: wx.CallAfter(frame.Close))  # wx sees no callback of GLib
    app.MainLoop()
