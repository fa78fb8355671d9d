"""A window that plots numbers while another process sends them: a client in Tk's loop, no thread.

    $ python pygame_balls.py &
    $ python tk_monitor.py &           how high the balls are; and with 60 others:
    $ python pygame_balls.py balls 90

It may be started first, and waits. When the game has ended it waits for the next one, and draws a
line where numbers are missing.
"""

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager

import shell
from balls import HEIGHT, Gravity, Quit, Watch

import ipcpoll

with shell.needs("apt-get install python3-tk"):
    import tkinter

    import tk_window

    from ipcpoll.adapters import tk_loop

WIDTH, EDGE = 600, 20  # one number for each pixel
SILENCE_MILLISECONDS = 500


class Plot:
    """Draws the last numbers, and says what it waits for."""

    def __init__(self, root: tkinter.Tk, source: str) -> None:
        self.root, self.source = root, source
        self.numbers: deque[float | None] = deque(maxlen=WIDTH)  # None: a gap
        self.came = self.looked = 0
        self.to_draw = ""
        root.title("Height of the balls")
        root.geometry("+0+0")
        root.resizable(False, False)
        self.text = tkinter.Label(root, anchor="w", padx=8, pady=4)
        self.text.pack(fill="x")
        self.canvas = tkinter.Canvas(
            root, width=WIDTH, height=HEIGHT, background="#101424", highlightthickness=0
        )
        self.canvas.pack()
        self.look()

    def add(self, number: float) -> None:
        self.came += 1
        self.put(number)

    def gap(self) -> None:
        self.put(None)

    def end(self, future: Future[None]) -> None:
        self.root.after_cancel(self.looking)
        self.text["text"] = f"that is all: {future.exception()}"

    def put(self, number: float | None) -> None:
        self.numbers.append(number)
        if not self.to_draw:  # many may come at once, and are drawn together
            self.to_draw = self.root.after_idle(self.draw)

    def draw(self) -> None:
        self.to_draw = ""
        canvas = self.canvas
        canvas.delete("all")
        points: list[float] = []
        for x, number in enumerate([*self.numbers, None]):
            if number is not None:
                points += x, HEIGHT - EDGE - number
                continue
            if len(points) > 2:
                canvas.create_line(points, fill="#7fd4ff", width=2, tags="numbers")
            points = []
            if x < len(self.numbers):
                canvas.create_line(x, 0, x, HEIGHT, fill="#ff7a59", dash=(4, 4), tags="gap")
        latest = self.numbers[-1]
        gaps = self.numbers.count(None)
        missing = f", {gaps} gap{'s' if gaps > 1 else ''}: something is missing" if gaps else ""
        if latest is not None:
            self.text["text"] = f"{latest:.0f} pixels{missing}"

    def look(self) -> None:
        """Twice a second: has anything come?"""
        if self.came == self.looked:
            self.text["text"] = f"waiting for {self.source}"
        self.looked = self.came
        self.looking = self.root.after(SILENCE_MILLISECONDS, self.look)


@contextmanager
def opened(address: str) -> Generator[Plot]:
    root = tk_window.Root()
    root.protocol("WM_DELETE_WINDOW", root.quit)  # the stream ends before the window does
    with ipcpoll.Client(address, timeout=None) as client:
        plot = Plot(root, address)
        tk_loop.attach(client, None, root)
        stream = client.stream(Watch(), resume=True)
        stream.each(plot.add, gap=plot.gap).add_done_callback(plot.end)
        yield plot
    root.destroy()


def run(address: str) -> None:
    with opened(address) as plot:
        plot.root.mainloop()


def check() -> None:
    """Let it wait for a game, and for the next one when that has ended."""
    import pygame_balls  # noqa: PLC0415

    pygame_balls.show_no_window()
    with shell.Processes(pygame_balls.__file__) as games, opened(games.address) as plot:

        def until(true: Callable[[], bool]) -> None:
            while not true():
                plot.root.update()

        def until_came(number: int) -> None:
            until(lambda: plot.came >= number)

        def shown(tag: str) -> int:
            return len(plot.canvas.find_withtag(tag))

        waiting = f"waiting for {games.address}"
        assert plot.text["text"] == waiting
        for gaps in range(2):
            game = games.start()
            assert shell.next_line(game) == f"serving at {games.address}\n"
            ipcpoll.send(Gravity(100), games.address)
            until_came(plot.came + 30)
            assert (shown("numbers"), shown("gap")) == (gaps + 1, gaps)
            assert (", 1 gap: " in plot.text["text"]) == (gaps == 1)
            ipcpoll.send(Quit(), games.address)
            until(lambda: plot.text["text"] == waiting)
            assert game.wait() == 0
        heights = [number for number in plot.numbers if number is not None]
        assert 0 <= min(heights) < max(heights) < HEIGHT


if __name__ == "__main__":
    line = shell.CommandLine(__doc__, run, address="pygame-balls", check=check)
    line.main(tkinter.TclError)
