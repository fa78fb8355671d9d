"""A viewer that runs once: "open this file in the window that is already there".

    $ python open_once.py letter.txt &       it becomes the viewer
    $ python open_once.py photo.png          the viewer that runs opens it too; this one ends
    $ python open_once.py --quit             the viewer ends

Which of two that start together becomes the viewer is decided by the address, not by looking first.
Here the window is the terminal, and its main loop is `select`. A real window would attach the
server to its toolkit's loop instead.
"""

import os
import select
from dataclasses import dataclass, field

import shell

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


def view(address: str, path: str) -> str:
    """Show a file in the viewer that runs, or become it. Return what there is to say."""
    command = Open(path)
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


def check() -> None:
    """Start two together: one becomes the viewer, and the other hands its file over."""
    with shell.Processes(__file__) as viewers:
        both = [viewers.start(__file__), viewers.start(viewers.directory)]
        handed_over, opened = sorted(shell.next_line(process) for process in both)
        assert handed_over == "handed over; the viewer has 2 files open\n"
        assert opened.startswith("viewer ")
        viewers.run("--quit")
        assert [process.wait() for process in both] == [0, 0]


def main() -> None:
    def run(address: str, path: str | None) -> None:
        print(view(address, path) if path else line.error("name a file, or --quit"))

    def end(address: str, path: object) -> None:
        ipcpoll.send(Quit(), address)

    line = shell.CommandLine(__doc__, run, address="open-once", check=check)
    # The viewer that runs has a directory of its own, so the path is made absolute here.
    line.add_argument("path", nargs="?", type=os.path.abspath, help="the file to show")
    text = "end the viewer that runs"
    line.add_argument("--quit", help=text, action="store_const", dest="run", const=end)
    line.main()


if __name__ == "__main__":
    main()
