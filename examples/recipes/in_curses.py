"""curses: a program that waits for keys waits for the server as well."""

import curses
import select
import sys

from calc import Add, Stop

import ipcpoll


def main(window: curses.window) -> None:
    window.nodelay(True)
    window.addstr("served by curses; q ends it")
    window.refresh()
    with ipcpoll.Server("calc", Add | Stop) as server:
        while not server.closed:
            readable, _, _ = select.select([sys.stdin, server], [], [])
            if server in readable:
                server.poll(server.close)
            elif window.getch() == ord("q"):
                break


curses.wrapper(main)
