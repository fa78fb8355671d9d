"""The stage of stage.py in a window of Tk: other processes change it, and it stays fluid."""

from collections.abc import Generator
from contextlib import contextmanager

import shell
import stage
import village

import ipcpoll

with shell.needs("apt-get install python3-tk"):
    import tkinter

    import tk_window

    from ipcpoll.adapters import tk_loop

FRAME_MILLISECONDS = 16


class Window:
    """Draws a stage, and a lamp that never stands still."""

    def __init__(self, root: tkinter.Tk, show: stage.Stage) -> None:
        self.root, self.show = root, show
        self.drawn = -1
        root.title("Tk stage")
        root.geometry("+0+0")
        root.resizable(False, False)
        self.canvas = tkinter.Canvas(
            root, width=stage.WIDTH, height=stage.HEIGHT, highlightthickness=0
        )
        self.canvas.pack()
        self.lamp = self.canvas.create_oval(612, 12, 628, 28, width=0)
        self.frame()

    def frame(self) -> None:
        self.root.after(stage.until_next_frame(FRAME_MILLISECONDS), self.frame)
        if self.drawn != self.show.version:
            self.drawn = self.show.version
            self.draw()
        self.canvas.itemconfigure(self.lamp, fill=stage.lamp())

    def draw(self) -> None:
        canvas = self.canvas
        canvas.configure(background=self.show.colour)
        canvas.delete("stage")
        for shape in self.show.shapes:
            half = shape.size / 2
            draw = (
                canvas.create_oval if isinstance(shape, stage.Circle) else canvas.create_rectangle
            )
            corners = (shape.x - half, shape.y - half, shape.x + half, shape.y + half)
            draw(*corners, fill=shape.colour, width=0, tags="stage")
        middle, bottom = stage.WIDTH / 2, stage.HEIGHT - 24
        font = ("DejaVu Sans", -20)
        canvas.create_text(
            middle, bottom, text=self.show.caption, fill="white", font=font, tags="stage"
        )
        canvas.tag_raise(self.lamp)


@contextmanager
def opened(address: str) -> Generator[Window]:
    show = stage.Stage()
    with ipcpoll.Server(address, stage.Command) as server:
        root = tk_window.Root()
        tk_loop.attach(server, show, root)
        yield Window(root, show)


def run(address: str) -> None:
    with opened(address) as window:
        window.root.mainloop()


def check() -> None:
    """Let a client draw the scene; the canvas must hold it."""
    with shell.Processes(stage.__file__) as clients, opened(clients.address) as window:
        client = clients.start("scene")
        while client.poll() is None or window.drawn != window.show.version:
            window.root.update()
        assert client.returncode == 0
        assert window.show == village.whole_scene()
        shapes = len(window.canvas.find_withtag("stage")) - 1  # without the caption
        assert shapes == len(window.show.shapes)
        window.root.destroy()


if __name__ == "__main__":
    shell.CommandLine(__doc__, run, address="stage", check=check).main(tkinter.TclError)
