"""Durations as people write them: ``1.5s``, ``200ms``, ``1h30m``, ``2d``. No I/O.

What is promised: a duration is read exactly, as a fraction, and rounded once, to what it is for.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

UNITS: Final = {
    "ns": Decimal("1e-9"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),  # the micro sign
    "μs": Decimal("1e-6"),  # the Greek letter
    "ms": Decimal("1e-3"),
    "s": Decimal(1),
    "m": Decimal(60),
    "min": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
"""The seconds of each unit."""

TIMEOUT: Final = 5.0
"""Seconds that a verb waits at most, unless ``--timeout`` says more or less."""

MOST_FOR_ALL: Final = 1.0
"""Seconds that all programs together are waited for, however long ``--timeout`` says."""

_LONG: Final = {
    "sec": "s",
    "second": "s",
    "seconds": "s",
    "millisecond": "ms",
    "milliseconds": "ms",
    "minute": "m",
    "minutes": "m",
    "hour": "h",
    "hours": "h",
    "day": "d",
    "days": "d",
}
_PART: Final = r"\d{1,20}(?:\.\d{0,20})?(?:ns|us|µs|μs|ms|s|min|m|h|d)"
_WRITTEN: Final = re.compile(rf"([+-]?)((?:{_PART})+)", re.ASCII)
_PARTS: Final = re.compile(r"([0-9.]+)(\D+)")
_NUMBER: Final = re.compile(r"\+?\d{1,20}(?:\.\d{0,20})?", re.ASCII)


def unit(name: object) -> Decimal | None:
    """Return the seconds of a unit, by its sign or its English name; None: it is no duration's."""
    return UNITS.get(_LONG.get(name, name)) if isinstance(name, str) else None


def read(text: str) -> Decimal | None:
    """Return the seconds of a duration with units; None: it is none."""
    match = _WRITTEN.fullmatch(text)
    if match is None:
        return None
    parts = _PARTS.findall(match[2])
    seconds = sum((Decimal(number) * UNITS[name] for number, name in parts), Decimal(0))
    return -seconds if match[1] == "-" else seconds


def in_seconds(text: str) -> float:
    """Return a time limit: a number of seconds, or a duration with units. Raises ValueError."""
    seconds = Decimal(text) if _NUMBER.fullmatch(text) else read(text)
    if seconds is None or seconds < 0:
        raise ValueError(f"must be a time like 2, 1.5s or 200ms, not {text!r}")
    return float(seconds)


def iso(seconds: Decimal) -> str:
    """Return a duration as ISO 8601 has it, in days and seconds, to the microsecond."""
    micro = int((abs(seconds) * 1_000_000).to_integral_value())
    days, micro = divmod(micro, 86_400_000_000)
    sign = "-" if seconds < 0 and (days or micro) else ""
    whole, part = divmod(micro, 1_000_000)
    fraction = f".{part:06}".rstrip("0") if part else ""
    time = f"T{whole}{fraction}S" if micro or not days else ""
    return f"{sign}P{f'{days}D' if days else ''}{time}"
