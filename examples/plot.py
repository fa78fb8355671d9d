"""A plot in a window of matplotlib, into which other processes draw. Needs matplotlib and Tk.

    $ python plot.py &
    $ python plot.py draw squares 1 4 9 16 25 36
    $ python plot.py draw primes 2 3 5 7 11 13
    $ python plot.py title "from a shell"
    $ python plot.py save plot.svg             a file, written by the window's process
    $ python plot.py clear

It can still be zoomed and moved with the mouse meanwhile.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import shell

import ipcpoll


@dataclass
class Draw:
    """Draw a line with a name, or another one in its place; answer how many there are."""

    name: str
    values: list[float]

    def process(self, ctx: Any) -> int:
        for line in [line for line in ctx.lines if line.get_label() == self.name]:
            line.remove()
        ctx.plot(self.values, label=self.name)
        show(ctx)
        return len(ctx.lines)


@dataclass
class Title:
    """Write something above."""

    text: str

    def process(self, ctx: Any) -> None:
        ctx.set_title(self.text, parse_math=False)  # no markup: it could be wrong, or slow
        show(ctx)


@dataclass
class Clear:
    """Remove all lines, and the title."""

    def process(self, ctx: Any) -> None:
        ctx.clear()
        show(ctx)


@dataclass
class Save:
    """Write the picture into a file, whose name says in what format."""

    path: str

    def process(self, ctx: Any) -> None:
        try:
            ctx.figure.savefig(self.path)
        except (OSError, ValueError) as error:
            raise ipcpoll.CommandError("not-saved", str(error)) from None


def show(axes: Any) -> None:
    """Draw when the loop has nothing else to do, and once for many commands."""
    if axes.lines:
        axes.legend()
    axes.figure.canvas.draw_idle()


@contextmanager
def opened(address: str) -> Generator[tuple[Any, Any]]:
    with shell.needs("pip install matplotlib, with apt-get install python3-tk,"):
        import matplotlib.pyplot as plt  # noqa: PLC0415 (clients need none)

        from ipcpoll.adapters import tk_loop  # noqa: PLC0415

    with ipcpoll.Server(address, Draw | Title | Clear | Save) as server:
        plt.switch_backend("TkAgg")
        figure, axes = plt.subplots(figsize=(6.4, 4))
        manager: Any = figure.canvas.manager
        tk_loop.attach(server, axes, manager.window)  # the adapter of its toolkit
        yield plt, axes
        plt.close(figure)


def run(address: str) -> None:
    with opened(address) as (plt, _):
        plt.show()


def check() -> None:
    """Let clients draw; the axes must hold it."""
    with shell.Processes(__file__) as clients, opened(clients.address) as (_, axes):
        window = axes.figure.canvas.manager.window
        for words in (["draw", "a", "1", "2"], ["draw", "b", "3"], ["draw", "a", "4", "5"]):
            client = clients.start(*words)
            while client.poll() is None:
                window.update()
            assert client.returncode == 0
        drawn = [(line.get_label(), list(line.get_ydata())) for line in axes.lines]
        assert drawn == [("b", [3]), ("a", [4, 5])]


if __name__ == "__main__":
    line = shell.CommandLine(__doc__, run, address="plot", check=check)
    line.add_commands(Draw, Title, Clear, Save)
    line.main()
