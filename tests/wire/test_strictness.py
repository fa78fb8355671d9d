"""The gate proves itself: a cbor2 that lets through what must be refused makes no server."""

import functools
import importlib.metadata
import io
import subprocess
import sys

import cbor2
import pytest
from harness import COMMANDS

from ipcpoll import Client, Server, UnsafeDependency
from ipcpoll._wire import codec, strictness
from ipcpoll._wire.codec import _NoTags
from ipcpoll.limits import MAX_DEPTH

STRICT = {
    "semantic_decoders": _NoTags(),
    "max_depth": MAX_DEPTH,
    "allow_indefinite": False,
    "allow_duplicate_keys": False,
    "strict_hashable_types": True,
}


class Again:
    """Reads an item and begins anew behind it, so the place where it stopped is not true."""

    def __init__(self, stream: io.BytesIO) -> None:
        self.stream = stream

    def decode(self) -> object:
        value = cbor2.CBORDecoder(self.stream, **STRICT).decode()
        self.stream.read()
        return value


class Blind:
    """Refuses everything."""

    def __init__(self, stream: io.BytesIO) -> None:
        pass

    def decode(self) -> object:
        raise ValueError("no")


class Loose:
    """Takes integers for floats."""

    def __init__(self, stream: io.BytesIO) -> None:
        self.stream = stream

    def decode(self) -> object:
        value = cbor2.CBORDecoder(self.stream, **STRICT).decode()
        value[0]["a"][0] = True
        return value


def loose(**options):
    return lambda stream: cbor2.CBORDecoder(stream, **{**STRICT, **options})


BROKEN = [
    (loose(semantic_decoders=None), "reads a tag (a bignum), which must be refused"),
    (loose(allow_duplicate_keys=True), "reads a key that stands twice, which must be refused"),
    (loose(allow_indefinite=True), "reads an array of indefinite length, which must be refused"),
    (loose(max_depth=1000), "reads 65 levels of arrays, which must be refused"),
    (Again, "does not stop at the end of an item"),
    (Blind, "refuses what must be read"),
    (Loose, "reads something else than what is there"),
]


@pytest.fixture
def path(tmp_path):
    """Where a socket may be. Not conftest's: the mutation testing does without that."""
    return str(tmp_path / "s")


@pytest.fixture
def unproven(monkeypatch):
    monkeypatch.setattr(strictness, "_proven", [])


@pytest.mark.parametrize(("decoder", "fault"), BROKEN, ids=[fault for _, fault in BROKEN])
def test_nothing_is_made_with_a_cbor2_that_is_not_strict(
    unproven, monkeypatch, path, decoder, fault
):
    monkeypatch.setattr(strictness, "gated", lambda stream: decoder(stream).decode)
    version = importlib.metadata.version("cbor2")
    sentence = (
        f"cbor2 {version} {fault}: ipcpoll can't work safely with it; install another release"
    )
    for make in (lambda: Server(path, COMMANDS), lambda: Client(path), lambda: Client("name")):
        with pytest.raises(UnsafeDependency) as caught:
            make()
        assert str(caught.value) == sentence
        assert isinstance(caught.value, ImportError)
    monkeypatch.undo()
    with Server(path, COMMANDS):  # nothing was left behind, and nothing bad is remembered
        pass


@pytest.mark.parametrize(
    ("what", "frame"), strictness._REFUSED, ids=[w for w, _ in strictness._REFUSED]
)
def test_each_frame_bites(monkeypatch, what, frame):
    """A decoder that takes this one frame alone is found by it."""

    def gated(stream):
        if stream.getvalue() == frame:
            return lambda: None
        return codec.gated(stream)

    monkeypatch.setattr(strictness, "gated", gated)
    with pytest.raises(UnsafeDependency, match="which must be refused") as caught:
        strictness._prove()
    assert f"reads {what}, which" in str(caught.value)


@pytest.mark.parametrize(
    ("dumps", "fault"),
    [
        (functools.partial(cbor2.dumps, value_sharing=True), "writes something else"),
        (functools.partial(cbor2.dumps, canonical=True), "writes something else"),
        (
            lambda value: b"" if value == ["\ud800"] else cbor2.dumps(value),
            "writes text with a lone surrogate, which is no UTF-8",
        ),
    ],
)
def test_nothing_is_made_with_an_encoder_that_writes_otherwise(
    unproven, monkeypatch, path, dumps, fault
):
    monkeypatch.setattr(strictness, "dumps", dumps)
    with pytest.raises(UnsafeDependency, match=fault):
        Server(path, COMMANDS)
    with pytest.raises(UnsafeDependency, match=fault):
        Client(path)


@pytest.mark.parametrize("where", ["refused", "good"])
def test_an_interrupt_comes_through_and_proves_nothing(unproven, monkeypatch, where):
    def gated(stream):
        if (where == "good") == stream.getvalue().startswith(strictness._GOOD):
            raise KeyboardInterrupt
        return codec.gated(stream)

    monkeypatch.setattr(strictness, "gated", gated)
    with pytest.raises(KeyboardInterrupt):
        strictness.prove()
    assert strictness._proven == []


def test_a_panic_of_cbor2_is_a_refusal(unproven, monkeypatch):
    class Panic(BaseException):
        pass

    def gated(stream):
        if stream.getvalue().startswith(strictness._GOOD):
            return codec.gated(stream)

        def decode():
            raise Panic

        return decode

    monkeypatch.setattr(strictness, "gated", gated)
    strictness._prove()


def test_a_cbor2_without_metadata_is_named_all_the_same(monkeypatch):
    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert strictness._sentence("x").startswith("cbor2 of an unknown version x: ")


def test_it_is_asked_once(unproven, monkeypatch):
    strictness.prove()
    monkeypatch.setattr(strictness, "gated", None)
    strictness.prove()


def test_the_first_client_of_a_process_asks(path):
    program = f"""
import ipcpoll
from ipcpoll._wire import strictness
assert not strictness._proven
ipcpoll.Client({path!r})
assert strictness._proven
"""
    subprocess.run([sys.executable, "-c", program], check=True)
