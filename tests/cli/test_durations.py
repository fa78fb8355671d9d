"""Durations as people write them."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipcpoll.cli.durations import in_seconds, iso, read, unit


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1.5s", "1.5"),
        ("200ms", "0.2"),
        ("1h30m", "5400"),
        ("2d", "172800"),
        ("1min", "60"),
        ("5us", "0.000005"),
        ("5µs", "0.000005"),
        ("5μs", "0.000005"),
        ("1ns", "1e-9"),
        ("-1.s", "-1"),
        ("+1m1s", "61"),
    ],
)
def test_read(text: str, seconds: str) -> None:
    assert read(text) == Decimal(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "1 s", "1y", "1e3s", ".5s", "1s-1s", "٣s", "1S"])
def test_no_duration(text: str) -> None:
    assert read(text) is None


@pytest.mark.parametrize(("text", "seconds"), [("2", 2.0), ("0.5", 0.5), ("1.5s", 1.5), ("1m", 60)])
def test_time_limit(text: str, seconds: float) -> None:
    assert in_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "-1s", "nan", "inf", "1e3", "x", "9" * 5000])
def test_no_time_limit(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be a time like 2, 1\.5s or 200ms, not"):
        in_seconds(text)


@pytest.mark.parametrize(
    ("name", "seconds"),
    [("s", "1"), ("ms", "0.001"), ("minutes", "60"), ("m/s", None), (None, None), ([], None)],
)
def test_unit(name: object, seconds: str | None) -> None:
    assert unit(name) == (None if seconds is None else Decimal(seconds))


@given(st.timedeltas())
def test_iso_is_what_a_program_reads(duration: timedelta) -> None:
    micro = duration // timedelta(microseconds=1)
    text = iso(Decimal(micro) / 1_000_000)
    assert msgspec.convert(text, timedelta) == duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        ("1.5", "PT1.5S"),
        ("0", "PT0S"),
        ("86400", "P1D"),
        ("-90061", "-P1DT3661S"),
        ("1e-9", "PT0S"),
    ],
)
def test_iso(seconds: str, text: str) -> None:
    assert iso(Decimal(seconds)) == text
