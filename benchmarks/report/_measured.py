"""What `make bench` has written, read again: medians, and ratios within a round."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _calls import ONE_CORE, TWO_CORES


class Measured:
    """The JSON files of one folder, one for each benchmark."""

    def __init__(self, folder: Path) -> None:
        self.files: dict[str, Any] = {
            path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))
        }

    def sections(self, benchmark: str) -> dict[str, Any]:
        sections: dict[str, Any] = self.files[benchmark]["sections"]
        return sections

    def names(self, benchmark: str, section: str) -> list[str]:
        return list(self.sections(benchmark)[section]["samples"])

    def each(self, benchmark: str, section: str, name: str, figure: str) -> list[float]:
        """Return a candidate's figure, round by round."""
        samples = self.sections(benchmark)[section]["samples"][name]
        return [sample[figure] for sample in samples]

    def median(self, benchmark: str, section: str, name: str, figure: str) -> float:
        return statistics.median(self.each(benchmark, section, name, figure))

    def ratios(
        self, benchmark: str, section: str, name: str, base: str, figure: str = "wall"
    ) -> list[float]:
        """Return the ratios of one candidate to another, round by round."""
        ours = self.each(benchmark, section, name, figure)
        others = self.each(benchmark, section, base, figure)
        return [one / other for one, other in zip(ours, others, strict=True)]

    def placements(self) -> list[str]:
        """Return where the calls were measured: on one core, and where there are more on two."""
        found = self.sections("one_call")
        return [placement for placement in (ONE_CORE, TWO_CORES) if placement in found]


def middle(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Return the median, and between which two the middle half lies."""
    if len(ratios) == 1:
        return ratios[0], ratios[0], ratios[0]
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return median, low, high


def worded(ratios: Sequence[float]) -> str:
    median, low, high = middle(ratios)
    return f"{median:.2f} ({low:.2f}–{high:.2f})"
