"""The short form of the fuzzing in tests/campaign: the corpus, all bombs, some seconds of chance.

The same streams each time. And it bites: a library that is broken in one place is found out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import bombs
import cbor2
import pytest
from harness import ROOT
from wire import framed

sys.path.insert(0, str(ROOT / "tests" / "campaign"))

import corpus
import fuzz_parser
import fuzz_properties
import fuzz_sockets
import streams_at_random

from ipcpoll import Limits
from ipcpoll._wire.framing import FrameBuffer

pytestmark = pytest.mark.once

ANY_BOMB = Limits(max_frame=4 << 20, max_answer=4 << 20)
BOMBS = {
    f"{kind} {name}": make
    for kind, table in (
        ("lengths", bombs.LENGTHS),
        ("tags", bombs.TAGS),
        ("collisions", bombs.COLLISIONS),
        ("duplicates", bombs.DUPLICATES),
        ("trailing", bombs.TRAILING),
        ("kinds", bombs.KINDS),
        ("words", bombs.WORDS),
    )
    for name, make in table.items()
}
BATCHES = {"frames": 40, "server": 5, "client": 5}


def check_batches(fuzzer: fuzz_parser.Fuzzer, count: int) -> None:
    for _ in range(count):
        fuzzer.batch()


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with fuzz_parser.quiet():
        yield


def test_corpus() -> None:
    assert fuzz_parser.replay() > 100
    assert corpus.FILE.stat().st_size < 100_000


@pytest.mark.parametrize("make", BOMBS.values(), ids=BOMBS)
def test_every_bomb_is_refused_by_both_ends_however_it_is_split(
    make: Callable[[], bombs.Bomb],
) -> None:
    item = make().item
    # A quarter of a million arrays are read often enough as it is.
    for position in bombs.POSITIONS if len(item) < 100_000 else [bombs.as_field]:
        stream = framed(position(item))
        fuzz_properties.check_server(0xFE, stream, ANY_BOMB)
    fuzz_properties.check_client(0xFE, framed(b"\x83\x01\x00" + item), ANY_BOMB)


@pytest.mark.parametrize("name", BATCHES)
def test_streams_made_by_chance(name: str) -> None:
    fuzzer = fuzz_parser.Fuzzer(name, seed=1)
    check_batches(fuzzer, BATCHES[name])
    assert fuzzer.executions == 2 * fuzzer.inputs


def test_nonsense_over_sockets() -> None:
    figures = fuzz_sockets.play(iter(range(4)), 0)
    assert figures["rounds"] == 4
    assert int(figures["good calls"]) > 400
    assert int(figures["faults found by the server"]) > 100
    assert int(figures["futures, answered"]) > 1


# ---------------------------------------------------------------------------------------------
# It bites


class LooseDecoder(fuzz_properties.Decoder):
    """cbor2 as it comes: it resolves references, and ignores what stands behind the item."""

    def decode(self, payload: bytes) -> object:
        try:
            return cbor2.loads(payload)
        except Exception:
            return super().decode(payload)


class RaisesAnother(fuzz_properties.Decoder):
    def decode(self, payload: bytes) -> object:
        if payload.endswith(b"\xff"):
            raise RecursionError
        return super().decode(payload)


class LosesAByte(FrameBuffer):
    """Wrong only where a read ends behind the first byte of a frame."""

    def feed(self, data: bytes) -> None:
        super().feed(data if data != b"\xd8" else b"")


class KeepsEverything(FrameBuffer):
    def __len__(self) -> int:
        return super().__len__() + 1000


def ignore_keys(command: Any, fields: dict[str, Any]) -> Any:
    return bind(command, {key: fields[key] for key in fields if key != "unknown"})


bind = fuzz_properties.SET["Echo"].__class__.bind


@pytest.mark.parametrize(
    ("name", "where", "what", "broken"),
    [
        ("server", fuzz_properties, "DECODER", LooseDecoder()),
        ("client", fuzz_properties, "DECODER", LooseDecoder()),
        ("client", fuzz_properties, "DECODER", RaisesAnother()),
        ("frames", fuzz_properties, "FrameBuffer", LosesAByte),
        ("frames", fuzz_properties, "FrameBuffer", KeepsEverything),
        ("server", type(fuzz_properties.SET["Echo"]), "bind", ignore_keys),
    ],
    ids=["loose server", "loose client", "escapes", "loses a byte", "keeps", "ignores keys"],
)
def test_broken_library_is_found_out(
    monkeypatch: pytest.MonkeyPatch, name: str, where: Any, what: str, broken: Any
) -> None:
    fuzzer = fuzz_parser.Fuzzer(name, seed=1)
    monkeypatch.setattr(where, what, broken)
    with pytest.raises(AssertionError, match=rf"as corpus.txt has it: {name} [0-9a-f]*$"):
        check_batches(fuzzer, 40)


def test_bad_input_is_made_smaller() -> None:
    def holds(data: bytes) -> int:
        assert b"ab" not in data
        return 1

    assert fuzz_parser.made_smaller(holds, b"xxxxabxxxxxx") == b"ab"


def test_spans_of_a_payload_and_of_a_stream() -> None:
    payload = b"\x83\x01\x62ab\xa1\x61a\x80"
    spans = streams_at_random.spans(payload)
    assert [payload[begin:end] for begin, end in spans] == [
        payload,
        b"\x01",
        b"\x62ab",
        b"\xa1\x61a\x80",
        b"\x61a",
        b"\x80",
    ]
    stream = framed(b"one") + framed(b"", 3) + framed(b"two")[:-1]
    frames = streams_at_random.frames(stream)
    assert [stream[begin:end] for begin, end in frames] == [b"one", b""]
