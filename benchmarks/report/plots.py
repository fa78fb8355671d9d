"""Draw the plots of docs/benchmarks.md and renew its tables: ``plots.py MEASURED DOCS``.

MEASURED is the folder with the JSON that `make bench` has written, DOCS that of the document. The
same figures always give the same bytes: no date, no random names.
"""

from __future__ import annotations

import re
import statistics
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # what all benchmarks share
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "peers"))

from _calls import ONE_CORE, TWO_CORES
from _figures import NAMES, tables
from _measured import Measured, middle

OURS: Final = "#0b6e4f"
OTHERS: Final = "#9aa5b1"
SECOND: Final = "#c8553d"
LEAST: Final = 0.5  # where bars begin; a logarithm has no zero
SHORT: Final = {ONE_CORE: "one core", TWO_CORES: "two cores"}
STYLE: Final = {
    "svg.hashsalt": "ipcpoll",
    "svg.fonttype": "none",  # text stays text: small files that can be searched
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e7eb",
    "legend.frameon": False,
    "lines.marker": "o",
    "lines.markersize": 4,
}
MARKED: Final = re.compile(r"(<!-- figures: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def short(number: int) -> str:
    """Return a number as the label of a tick."""
    for unit, factor in (("Mi", 1024**2), ("Ki", 1024), ("k", 1000)):
        if number and number % factor == 0:
            return f"{number // factor}{unit}"
    return f"{number}"


class Plots:
    """Draws from one set of figures into one folder."""

    def __init__(self, measured: Measured, folder: Path) -> None:
        matplotlib: Any = import_module("matplotlib")
        matplotlib.use("svg")
        matplotlib.rcParams.update(STYLE)
        self._pyplot: Any = import_module("matplotlib.pyplot")
        self._measured = measured
        self._folder = folder

    def _panels(self, count: int, width: float, height: float) -> tuple[Any, list[Any]]:
        figure, axes = self._pyplot.subplots(1, count, figsize=(width, height), squeeze=False)
        return figure, list(axes[0])

    def _save(self, figure: Any, name: str) -> None:
        figure.tight_layout()
        path = self._folder / f"benchmarks_{name}.svg"
        figure.savefig(path, metadata={"Date": None, "Creator": None})
        self._pyplot.close(figure)
        print(path)

    def peers(self, kind: str, name: str) -> None:
        """Draw every peer as a multiple of the floor, the fastest on top."""
        placements = self._measured.placements()
        figure, axes = self._panels(len(placements), 4.6 * len(placements), 3.6)
        for axis, placement in zip(axes, placements, strict=True):
            section = f"{kind}, {placement}"
            each = {
                other: middle(self._measured.ratios("peers", section, other, "ping"))
                for other in self._measured.names("peers", section)
            }
            names = sorted(each, key=lambda other: each[other][0], reverse=True)
            values = [each[other][0] for other in names]
            spread = [
                [each[n][0] - each[n][1] for n in names],
                [each[n][2] - each[n][0] for n in names],
            ]
            colours = [OURS if other == "ipcpoll" else OTHERS for other in names]
            shown = [NAMES[other].strip("*") for other in names]
            widths = [value - LEAST for value in values]
            axis.barh(shown, widths, left=LEAST, color=colours, xerr=spread, error_kw={"lw": 0.8})
            axis.set_xscale("log")
            ticks = [tick for tick in (1, 3, 10, 30, 100, 300) if tick <= max(values)]
            axis.set_xticks(ticks, [f"{tick}" for tick in ticks])
            axis.set_xticks([], minor=True)
            axis.set_xlabel("times the bare one (log)")
            axis.set_title(SHORT[placement])
            axis.grid(visible=False, axis="y")
            for place, value in enumerate(values):
                axis.annotate(
                    f"{value:.1f}",
                    (each[names[place]][2], place),
                    (4, 0),
                    textcoords="offset points",
                    va="center",
                )
            axis.set_xlim(LEAST, max(high for *_, high in each.values()) * 5)
        self._save(figure, name)

    def pipelined(self) -> None:
        """Draw commands per ping-pong over the depth."""
        placements = self._measured.placements()
        figure, axes = self._panels(len(placements), 4 * len(placements), 2.8)
        for axis, placement in zip(axes, placements, strict=True):
            names = self._measured.names("pipelined", placement)
            for way, colour in (("map", OURS), ("submit", SECOND), ("submit, result()", OTHERS)):
                depths = sorted(int(n.rpartition(" ")[2]) for n in names if n.startswith(f"{way} "))
                self._line(
                    axis,
                    depths,
                    [
                        self._measured.ratios("pipelined", placement, "ping", f"{way} {depth}")
                        for depth in depths
                    ],
                    way,
                    colour,
                )
            axis.axhline(1, color="black", lw=0.8, ls=":", marker="")
            self._finish(axis, SHORT[placement], "in flight", "commands per ping-pong")
        self._save(figure, "pipelined")

    def growth(self) -> None:
        """Draw what a command costs as each thing grows."""
        measured = self._measured
        figure, axes = self._pyplot.subplots(2, 3, figsize=(9.6, 6))
        panels = list(axes.flat)
        for axis, grown in zip(panels, measured.sections("growth"), strict=False):
            names = measured.names("growth", grown)
            for prefix, label, colour in (
                ("", "ipcpoll", OURS),
                ("bare loop ", "bare loop", OTHERS),
            ):
                sizes = [n.removeprefix(prefix) for n in names if n.startswith(prefix)]
                numbers = [int(size) for size in sizes if size.isdecimal()]
                if numbers:
                    costs = [
                        measured.each("growth", grown, f"{prefix}{number}", "server")
                        for number in numbers
                    ]
                    self._line(axis, numbers, costs, label, colour)
            what = "piece" if grown == "subscribers" else "command"
            self._finish(axis, "", grown, f"µs of the server's CPU per {what}")
        self._payload(panels[4])
        self._idle(panels[5])
        self._save(figure, "growth")

    def _payload(self, axis: Any) -> None:
        measured, placement = self._measured, self._measured.placements()[0]
        units = {"B": 1, "KiB": 1024, "MiB": 1024**2}
        for who, colour in (("ipcpoll", OURS), ("bare socket", OTHERS)):
            sizes, costs = list[int](), list[list[float]]()
            for name in measured.names("payloads", placement):
                number, _, unit = name.removeprefix(f"{who}, ").partition(" ")
                if name.startswith(who) and unit in units:
                    sizes.append(int(number) * units[unit])
                    costs.append(measured.each("payloads", placement, name, "processor"))
            self._line(axis, sizes, costs, who, colour)
        self._finish(axis, "", "bytes there and back", "µs of both CPUs per call (log)", least=None)
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.set_yticks([], minor=True)

    def _idle(self, axis: Any) -> None:
        names = self._measured.names("idle_poll", "idle poll")
        for who, label, colour in (
            ("server", "Server.poll", OURS),
            ("bare", "epoll.poll(0)", OTHERS),
        ):
            sizes = [int(n.partition(" ")[2]) for n in names if n.startswith(who)]
            costs = [
                self._measured.each("idle_poll", "idle poll", f"{who} {size}", "value")
                for size in sizes
            ]
            self._line(axis, sizes, costs, label, colour)
        self._finish(axis, "", "idle connections", "µs per idle poll")

    def _line(
        self, axis: Any, at: list[int], each: list[list[float]], label: str, colour: str
    ) -> None:
        """Draw medians, and the middle half around them."""
        halves = [middle(values) for values in each]
        axis.plot(at, [statistics.median(values) for values in each], color=colour, label=label)
        axis.fill_between(
            at,
            [low for _, low, _ in halves],
            [high for *_, high in halves],
            color=colour,
            alpha=0.15,
        )

    def _finish(self, axis: Any, title: str, x: str, y: str, *, least: float | None = 0) -> None:
        at = [int(number) for number in axis.lines[0].get_xdata()]
        axis.set_xscale("symlog" if at[0] == 0 else "log")
        axis.set_xticks(at, [short(number) for number in at])
        axis.set_xticks([], minor=True)
        if least is not None:
            axis.set_ylim(bottom=least)
        axis.set_title(title)
        axis.set_xlabel(x)
        axis.set_ylabel(y)
        axis.legend()


def renew(document: Path, measured: Measured) -> None:
    """Put each table between its markers."""
    makers = tables(measured)
    text = document.read_text()
    marked = {match[2] for match in MARKED.finditer(text)}
    if marked != set(makers):
        raise SystemExit(f"{document}: markers and tables differ: {marked ^ set(makers)}")
    text = MARKED.sub(lambda match: f"{match[1]}\n{makers[match[2]]()}\n\n{match[3]}", text)
    document.write_text(text)
    print(document)


def main(measured: Path, docs: Path) -> None:
    figures = Measured(measured)
    plots = Plots(figures, docs)
    plots.peers("calls", "calls")
    plots.peers("one-shot", "one_shot")
    plots.pipelined()
    plots.growth()
    renew(docs / "benchmarks.md", figures)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
