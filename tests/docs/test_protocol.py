"""docs/protocol.md against the code: each frame in it is made by one end and taken by the other."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import cbor2
import pytest
from documents import Block, blocks, read
from harness import PATIENCE, Peer, serve_until
from wire import TEXT as TEXT_ITEM
from wire import head

from ipcpoll import Cancelled, Client, Limits, NotPolled, Server, ShuttingDown, errors
from ipcpoll._schema.commands import resolve
from ipcpoll._wire.codec import Decoder, encode
from ipcpoll._wire.framing import FrameBuffer, frame
from ipcpoll._wire.messages import Failure, Piece
from ipcpoll._wire.protocol import ClientProtocol, ServerProtocol
from ipcpoll.limits import MAX_DEPTH

DOCUMENT = "docs/protocol.md"
TITLES = [
    "call",
    "answer",
    "notification",
    "call with options",
    "cancel",
    "error",
    "piece",
    "begun",
    "farewell",
]
TEXT = " ".join(read(DOCUMENT).split())


@dataclass
class Add:
    a: int
    b: int

    def process(self, ctx: list[int]) -> int:
        return self.a + self.b


@dataclass
class Push:
    x: int

    def process(self, ctx: list[int]) -> int:
        ctx.append(self.x)
        return len(ctx)


@dataclass
class Later:
    def process(self, ctx: list[int]) -> Future[int]:
        return Future()


@dataclass
class Found:
    at: int


@dataclass
class Missing:
    why: str


@dataclass
class Texts:
    keys: dict[int, bool]
    moment: datetime
    day: date
    hour: time
    span: timedelta
    number: Decimal
    name: UUID
    place: Path

    def process(self, ctx: None) -> Found | Missing:
        return Found(1)


# ---------------------------------------------------------------------------------------------
# The frames


def hex_blocks() -> dict[str, Block]:
    return {block.title: block for block in blocks(DOCUMENT) if block.language == "hex"}


def hex_lines(block: Block) -> Iterator[tuple[bytes, str]]:
    """Give the bytes and the meaning of each line under the title."""
    for line in block.text.splitlines()[1:]:
        left, _, right = line.partition("  ")
        assert right.strip(), f"{block}: {line!r} is not bytes, two spaces, a meaning"
        yield bytes.fromhex(left), right.strip()


def shown(title: str) -> bytes:
    """Return the frame that the document shows under this title."""
    return b"".join(data for data, _ in hex_lines(hex_blocks()[title]))


@pytest.fixture
def address(directory: str) -> str:
    return f"{directory}/calc.sock"


@pytest.fixture
def server(address: str) -> Iterator[Server[list[int]]]:
    with Server(address, Add | Push) as server:
        yield server


def exchange(server: Server[Any], data: bytes, size: int, stack: list[int] | None = None) -> bytes:
    """Send bytes to a server and return the `size` bytes that it answers."""
    with Peer(server) as peer:
        peer.send(data)
        received = bytearray()

        def has_answered() -> bool:
            try:
                received.extend(peer.socket.recv(65536))
            except BlockingIOError:
                pass
            return len(received) >= size

        serve_until(server, has_answered, [] if stack is None else stack)
    return bytes(received)


def test_each_block_is_checked() -> None:
    """The tests below name the blocks; a new one needs a line there."""
    assert list(hex_blocks()) == TITLES
    assert len([block for block in blocks(DOCUMENT) if block.language == "hex"]) == len(TITLES)


@pytest.mark.parametrize("title", TITLES)
def test_meanings(title: str) -> None:
    """Texts, ids and lengths that are named in a meaning stand in the bytes before it."""
    lines = list(hex_lines(hex_blocks()[title]))
    end = len(shown(title))
    begin = 0
    for at, (data, meaning) in enumerate(lines):
        begin += len(data)
        for text in re.findall(r'"([^"]*)"', meaning):
            assert text.encode() in data, meaning
        if match := re.search(r"\bid (\d+)$", meaning):
            assert data == encode(int(match[1]))
        if match := re.search(r"^(?:a byte string of )?(\d+) bytes\b", meaning):
            assert int(match[1]) == end - begin
            assert data == frame(bytes(end - begin))[2 : len(data) + 2]
        if match := re.search(r"^text of (\d+) bytes", meaning):
            behind = [re.findall(r'"([^"]*)"', words) for _, words in lines[at + 1 :]]
            text = shown(title)[begin : begin + int(match[1])].decode()
            assert "".join(word for words in behind for word in words).startswith(text)
            assert data == head(TEXT_ITEM, int(match[1]))


def test_frames_of_the_client(address: str) -> None:
    """What the client sends is what the document shows, byte for byte."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        with Client(address) as client:
            with pytest.raises(NotPolled):
                client.call(Add(2, 3), timeout=0)
            with pytest.raises(NotPolled):
                client.call(Add(2, 3), timeout=0)
            client.notify(Push(7))
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(PATIENCE)
            sent = b"".join(iter(lambda: connection.recv(65536), b""))
    first = shown("call") + shown("cancel").replace(b"\x81\x02", b"\x81\x01")
    second = shown("call").replace(b"\x83\x01", b"\x83\x02") + shown("cancel")
    assert sent == first + second + shown("notification")


def test_call_and_answer(server: Server[list[int]]) -> None:
    assert exchange(server, shown("call"), len(shown("answer"))) == shown("answer")


def test_notification_is_run_and_not_answered(server: Server[list[int]]) -> None:
    stack: list[int] = []
    received = exchange(server, shown("notification") + shown("call"), 7, stack)
    assert received == shown("answer")
    assert stack == [7]


def test_call_with_options(server: Server[list[int]]) -> None:
    stack: list[int] = []
    received = exchange(server, shown("call with options"), 7, stack)
    assert received == frame(b"\x83\x02\x00\x01")
    assert stack == [8]


def test_cancel_and_its_error(server: Server[list[int]]) -> None:
    stack: list[int] = []
    asked = shown("call with options") + shown("cancel")
    assert exchange(server, asked, len(shown("error")), stack) == shown("error")
    assert stack == []


def test_farewell(server: Server[list[int]]) -> None:
    with Peer(server) as peer:
        server.poll([])
        peer.send(shown("call"))
        server.close()
        assert peer.socket.recv(65536) == shown("farewell")
        assert peer.socket.recv(65536) == b""


def test_begun_and_farewell(address: str) -> None:
    with Server(address, Add | Later) as server, Peer(server) as peer:
        peer.call(5, "Later")
        serve_until(server, lambda: server.stats()["in_flight"], [])
        peer.send(shown("call"))
        server.close()
        assert peer.socket.recv(65536) == shown("begun") + shown("farewell")


def test_piece() -> None:
    """No server sends one yet; the protocol of both ends knows it."""
    client, server = ClientProtocol(Limits(), Decoder()), ServerProtocol(Limits(), Decoder())
    server.receive(client.call(4, b"\x83\x04\x61A\xa0"))
    server.next_request()
    sent = server.piece(4, encode("abc"))
    assert sent == shown("piece")
    client.receive(sent)
    assert client.next_response() == Piece(4, "abc")


@pytest.mark.parametrize("title", ["error", "farewell", "begun"])
def test_client_takes_errors(title: str) -> None:
    client = ClientProtocol(Limits(), Decoder())
    client.call(2, b"\x83\x02\x61A\xa0")
    client.call(5, b"\x83\x05\x61A\xa0")
    client.receive(shown(title))
    response = client.next_response()
    assert isinstance(response, Failure)
    assert response.call_id == {"error": 2, "farewell": None, "begun": 5}[title]
    assert isinstance(response.error, Cancelled | ShuttingDown)
    assert response.error.began is (title == "begun")


# ---------------------------------------------------------------------------------------------
# The capture


def test_capture(tmp_path: Path) -> None:
    """The tool of cbor2 prints of all frames what the document shows."""
    [block] = [block for block in blocks(DOCUMENT) if block.language == "console"]
    command, expected = block.text.split("\n", 1)
    prompt, python, *arguments = command.split()
    assert (prompt, python) == ("$", "python")
    (tmp_path / "capture.cbor").write_bytes(b"".join(map(shown, TITLES)))
    printed = subprocess.run(
        [sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert printed.stdout == expected


# ---------------------------------------------------------------------------------------------
# The tables


def rows(first_cell: str) -> list[list[str]]:
    """Return the rows of the table whose first column has this title."""
    lines = iter(read(DOCUMENT).splitlines())
    for line in lines:
        if line.startswith(f"| {first_cell} |"):
            break
    next(lines)
    found: list[list[str]] = []
    for line in lines:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    assert found, f"there is no table of {first_cell}"
    return found


def test_table_of_heads() -> None:
    """The bytes that `frame` writes at both ends of each row, as far as they can be made here."""
    table = rows("payload in bytes")
    ends = [[int(n.replace(",", "")) for n in re.findall(r"[\d,]+", row[0])] for row in table]
    codes = [[int(code, 16) for code in re.findall(r"`d8 18 (..)`", row[1])] for row in table]
    widths = [[int(n) for n in re.findall(r"in (\d) bytes?", row[1])] for row in table]
    assert ends == [[0, 23], [24, 2**8 - 1], [2**8, 2**16 - 1], [2**16, 2**32 - 1], []]
    assert codes == [[0x40, 0x57], [0x58], [0x59], [0x5A], [0x5B]]
    assert widths == [[], [1], [2], [4], [8]]
    for size, code in ((0, 0x40), (23, 0x57), (24, 0x58), (255, 0x58), (256, 0x59)):
        assert frame(bytes(size))[:3] == b"\xd8\x18%c" % code
    for size, code in ((2**16 - 1, 0x59), (2**16, 0x5A)):
        assert frame(bytes(size))[:3] == b"\xd8\x18%c" % code


@pytest.mark.parametrize(("code", "width"), [(0x58, 1), (0x59, 2), (0x5A, 4), (0x5B, 8)])
def test_any_definite_head_is_taken(code: int, width: int) -> None:
    buffer = FrameBuffer(100)
    buffer.feed(b"\xd8\x18%c" % code + (3).to_bytes(width, "big") + b"abc")
    assert buffer.next() == b"abc"


def test_table_of_types() -> None:
    """The values that stand in the table are what these become."""
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    texts = Texts(
        {5: True},
        moment,
        moment.date(),
        time(1, 2, 3),
        timedelta(days=1, seconds=1.5),
        Decimal("1.50"),
        UUID(int=5),
        Path("/a"),
    )
    payload = resolve(Texts).encode_call(encode(None), texts)
    [_, _, fields] = cbor2.loads(payload)
    keys = [f'"{key}"' for key in fields.pop("keys")]
    shown = [*keys, *fields.values()]
    assert [text for text in shown if f"`{text}`" not in TEXT] == []
    assert cbor2.loads(resolve(Texts).encode_answer(Found(1))) == ["Found", {"at": 1}]
    assert '`["Found", {…}]`' in TEXT


def test_table_of_codes() -> None:
    own = {cls.CODE for cls in vars(errors).values() if hasattr(cls, "CODE")}
    documented = [row[0].strip("`") for row in rows("code")]
    assert sorted(documented) == sorted({*own, errors.MALFORMED, errors.TOO_LARGE})


def test_table_of_limits() -> None:
    limits = Limits()
    values = [row[1] for row in rows("limit")]
    assert values == [
        f"{limits.max_frame:,} bytes",
        f"{limits.max_answer:,} bytes",
        f"{MAX_DEPTH}, fixed",
        str(limits.max_frames_waiting),
        f"{limits.max_unsent:,} bytes",
        str(limits.max_clients),
    ]


@dataclass
class Times:
    """What the table of the types says of what comes in."""

    share: float
    at: datetime
    by: dict[float, int] | None = None

    def process(self, ctx: object) -> None: ...


def test_what_comes_in_is_taken_as_the_table_says() -> None:
    def taken(**fields: Any) -> Times:
        fields = {"share": 0.5, "at": "2026-01-02T03:04:05Z", **fields}
        times = resolve(Times).bind(fields)
        assert isinstance(times, Times)
        return times

    assert "an integer is taken for the `float` nearest to it" in TEXT
    assert taken(share=3).share == 3.0
    assert taken(share=2**53 + 1).share == 2.0**53
    assert "six digits are kept, and what is beyond them is rounded" in TEXT
    for fraction, microseconds in ((".1", 100_000), (".123456", 123_456), (".1234567", 123_457)):
        assert taken(at=f"2026-01-02T03:04:05{fraction}Z").at.microsecond == microseconds
    assert "An offset has whole minutes" in TEXT
    with pytest.raises(errors.WireError, match=r"^Times\.at must be a datetime as in RFC 3339"):
        taken(at="2026-01-02T03:04:05+00:53:28")
    assert 'two that mean the same are refused (`"1"` and `"1.0"`' in TEXT
    with pytest.raises(errors.WireError, match=r"^Times\.by has two keys that mean the same$"):
        taken(by={"1": 1, "1.0": 2})
