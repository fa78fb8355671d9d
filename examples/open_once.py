"""A viewer that runs once: "open this file in the window that is already there".

    $ open_once.py letter.txt &       it becomes the viewer
    $ open_once.py photo.png          the viewer that runs opens it too; this process ends
    $ open_once.py --quit             the viewer ends

Which of two that start together becomes the viewer is decided by the address, not by looking first.
Here the window is the terminal, and its main loop is `select`. A real window would attach the
server to its toolkit's loop instead.
"""

import argparse
import os
import select
import sys
from dataclasses import dataclass, field

import ipcpoll


@dataclass
class Viewer:
    """The program: what it shows, and whether it goes on."""

    files: list[str] = field(default_factory=list)
    closing: bool = False

    def show(self, path: str) -> int:
        """Open one more file, and return how many there are."""
        self.files.append(path)
        print(f"viewer {os.getpid()}: {path} is open ({len(self.files)} in all)", flush=True)
        return len(self.files)


@dataclass
class Open:
    """Open a file, and answer how many are open."""

    path: str

    def process(self, ctx: Viewer) -> int:
        if not os.path.exists(self.path):
            raise ipcpoll.CommandError("no-such-file", f"there is no {self.path}")
        return ctx.show(self.path)


@dataclass
class Quit:
    """End the viewer. It answers first."""

    def process(self, ctx: Viewer) -> None:
        ctx.closing = True


def run(address: str, path: str) -> str:
    """Show a file in the viewer that runs, or become it. Returns what there is to say."""
    command = Open(os.path.abspath(path))  # the other process has a directory of its own
    server, files = ipcpoll.serve_or_send(address, Open | Quit, command)
    if server is None:
        return f"handed over; the viewer has {files} files open"
    viewer = Viewer()
    with server:
        command.process(viewer)
        while not viewer.closing:
            select.select([server], [], [])
            server.poll(viewer)
    return f"closed with {len(viewer.files)} files open"


def main() -> int:
    parser = argparse.ArgumentParser(description="Show files in one viewer.")
    parser.add_argument("--address", default="open-once", help="a name, or a path with a slash")
    parser.add_argument("--quit", action="store_true", help="end the viewer that runs")
    parser.add_argument("path", nargs="?", help="the file to show")
    arguments = parser.parse_args()
    if not arguments.quit and arguments.path is None:
        parser.error("name a file, or --quit")
    try:
        if arguments.quit:
            ipcpoll.send(Quit(), arguments.address)
        else:
            print(run(arguments.address, arguments.path))
    except KeyboardInterrupt:
        return 130
    except (ipcpoll.IpcError, OSError, ValueError) as error:
        print(f"open_once.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
