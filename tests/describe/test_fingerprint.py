"""The fingerprint: what it is of, and that nothing of the process is in it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cbor2
import pytest
import wire
from harness import PATIENCE, ROOT
from hypothesis import given
from hypothesis import strategies as st

from ipcpoll.describe.fingerprint import deterministic, fingerprint

SECTIONS = st.dictionaries(
    st.text(max_size=30), st.dictionaries(st.text(max_size=30), wire.PLAIN, max_size=4), max_size=4
)


def of(sections: dict[str, dict[str, Any]]) -> str:
    return fingerprint(
        {
            name: {key: deterministic(value) for key, value in entries.items()}
            for name, entries in sections.items()
        }
    )


@given(SECTIONS)
def test_it_is_of_the_whole_in_the_deterministic_encoding(sections: Any) -> None:
    assert of(sections) == hashlib.sha256(cbor2.dumps(sections, canonical=True)).hexdigest()


@given(SECTIONS)
def test_order_does_not_count(sections: Any) -> None:
    turned = {name: dict(reversed(entries.items())) for name, entries in reversed(sections.items())}
    assert of(turned) == of(sections)


@given(wire.PLAIN)
def test_keys_are_in_the_order_of_their_encodings(plain: Any) -> None:
    """RFC 8949, 4.2.1; cbor2 sorts as RFC 7049 did, which is the same for text."""

    def encoded(value: Any) -> bytes:
        if isinstance(value, dict):
            pairs = sorted(encoded(key) + encoded(item) for key, item in value.items())
            return wire.head(wire.MAP, len(pairs)) + b"".join(pairs)
        if isinstance(value, list):
            return wire.head(wire.ARRAY, len(value)) + b"".join(map(encoded, value))
        item: bytes = cbor2.dumps(value, canonical=True)
        return item

    assert deterministic(plain) == encoded(plain)


PROGRAM = Path(__file__).parent / "program_with_sets.py"


@pytest.mark.once
def test_two_processes_have_the_same_whatever_their_hash_seed() -> None:
    printed = set()
    for seed in ("1", "2", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        ended = subprocess.run(
            [sys.executable, str(PROGRAM), "argument", "--secret=hunter2"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
        assert not ended.stderr
        order, fingerprint, described = ended.stdout.split("\n", 2)
        printed.add((fingerprint, described))
        assert "hunter2" not in ended.stdout
        assert "argument" not in ended.stdout
        assert order
    [(fingerprint, described)] = printed
    assert len(fingerprint) == 64
    assert '"default": ["a", "b", "c", "d", "e"]' in described
