"""The stage of stage.py in a window of Tk: other processes change it, and it stays fluid."""

import sys
import time
import tkinter

import stage

import ipcpoll
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
        self.root.after(FRAME_MILLISECONDS, self.frame)
        if self.drawn != self.show.version:
            self.drawn = self.show.version
            self.draw()
        bright = stage.lamp(time.monotonic())
        self.canvas.itemconfigure(self.lamp, fill=f"#{bright:02x}{bright:02x}40")

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


def check(window: Window, address: str) -> bool:
    """Let a client process draw the scene; return whether the canvas shows it."""
    with stage.checking(address) as client:
        while client.poll() is None or window.drawn != window.show.version:
            window.root.update()
    shapes = len(window.canvas.find_withtag("stage")) - 1  # without the caption
    return stage.shows_the_scene(window.show) and shapes == len(window.show.shapes)


def main() -> int:
    arguments = stage.window_arguments(__doc__)
    show = stage.Stage()
    try:
        with stage.serving(arguments) as server:
            root = tkinter.Tk()
            tk_loop.attach(server, show, root)
            window = Window(root, show)
            if arguments.check:
                good = check(window, server.address)
                root.destroy()
                print("the scene is on the stage" if good else "the scene is not on the stage")
                return 0 if good else 1
            root.mainloop()
    except KeyboardInterrupt:
        return 130
    except (ipcpoll.IpcError, OSError, ValueError, tkinter.TclError) as error:
        print(f"tk_stage.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
