"""Frames: the same payloads however the bytes are split, and a clear end of a broken stream."""

import sys
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire import BYTES, LONGER, Fault, arrays, fault, framed, head, tr, ways

from ipcpoll._wire import framing
from ipcpoll._wire.framing import (
    MAX_OVERHEAD,
    MOST_SHORT,
    FrameBuffer,
    frame,
    frame_of,
    only_payload,
    size_of,
)
from ipcpoll.errors import WireError

TYPED = "this socket speaks CBOR frames (d8 18 …), not text: use the ipcpoll client of the program"
LIMIT = 300


def drain(buffer):
    """Take all payloads; the fault ends it."""
    got = []
    while True:
        try:
            payload = buffer.next()
        except WireError as error:
            return [*got, fault(error)]
        if payload is None:
            return got
        got.append(payload)


def read(chunks):
    """Feed the chunks, and take what is there after each."""
    buffer = FrameBuffer(LIMIT)
    got = []
    for chunk in chunks:
        buffer.feed(chunk)
        got += drain(buffer)
        if buffer.broken:
            break
    return got


def malformed(message):
    return Fault("malformed", message, fatal=True)


SIZES = [0, 1, 23, 24, 255, 256, 65535, 65536, 70000]


@pytest.mark.parametrize("size", SIZES)
def test_frame_has_the_shortest_head(size):
    payload = bytes(size)
    assert frame(payload) == framed(payload)
    assert len(frame(payload)) <= size + MAX_OVERHEAD


def test_frame_of_four_gigabytes_has_a_head_of_eight_bytes():
    class Huge(bytes):
        def __len__(self):
            return 2**32

    assert frame(Huge(b"x")) == b"\xd8\x18" + head(BYTES, 2**32) + b"x"


@pytest.mark.parametrize("size", [*range(30), *SIZES])
def test_frame_of_parts_is_the_frame_of_the_whole(size):
    payload = bytes(range(256)) * (size // 256) + bytes(range(size % 256))
    assert size_of(payload) == size
    assert frame_of(payload) == framed(payload)
    for cut in {0, 1, size // 2, size}:
        parts = payload[:cut], b"", payload[cut:]
        assert size_of(parts) == size
        assert frame_of(parts) == framed(payload)


def test_parts_of_four_gigabytes_have_a_head_of_eight_bytes():
    class Huge(bytes):
        def __len__(self):
            return 2**32 - 1

    assert frame_of((Huge(b"x"), b"y")) == b"\xd8\x18" + head(BYTES, 2**32) + b"xy"
    assert frame_of((Huge(b"x"),)) == b"\xd8\x18" + head(BYTES, 2**32 - 1) + b"x"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("longer", range(5))
def test_any_definite_head_is_accepted(size, longer):
    buffer = FrameBuffer(70000)
    buffer.feed(framed(bytes(size), longer))
    assert buffer.next() == bytes(size)
    assert buffer.next() is None
    assert len(buffer) == 0


@pytest.mark.parametrize("longer", range(5))
@pytest.mark.parametrize("payload", [b"", b"\x00", bytes(range(23)), bytes(30)])
def test_one_frame_however_it_is_split(payload, longer):
    tr(read, framed(payload, longer), [payload])


def test_frames_however_they_are_split():
    payloads = [b"", b"one", b"\xd8\x18", bytes(24), b"", b"last"]
    tr(read, b"".join(map(frame, payloads)), payloads)


BROKEN = [
    pytest.param(b"GET / HTTP/1.1\r\n\r\n", TYPED, id="HTTP"),
    pytest.param(b"add 2 3\n", TYPED, id="typed"),
    pytest.param(b"\n", TYPED, id="enter"),
    pytest.param(b" 2 3", TYPED, id="space"),
    pytest.param(b"~", TYPED, id="tilde"),
    pytest.param(b'{"a": 1}', TYPED, id="JSON"),
    pytest.param(b"\x16\x03\x01\x02", "a frame begins with the bytes d8 18, not 16 03", id="TLS"),
    pytest.param(b"\xd8\x19\x41", "a frame begins with the bytes d8 18, not d8 19", id="tag 25"),
    pytest.param(b"\xd9\x00\x18", "a frame begins with the bytes d8 18, not d9 00", id="long tag"),
    pytest.param(b"\x7f\x00", "a frame begins with the bytes d8 18, not 7f 00", id="DEL"),
    pytest.param(b"\x9d\x18\x41\x00", "a frame begins with the bytes d8 18, not 9d 18", id="9d 18"),
    pytest.param(b"\xd8\x00\x18", "a frame begins with the bytes d8 18, not d8 00", id="d8 00 18"),
    pytest.param(
        b"\xd8\x00\x41\x18", "a frame begins with the bytes d8 18, not d8 00", id="18 end"
    ),
    pytest.param(
        b"\xd8\x18\x5f\x41\x00\xff",
        "the frame's byte string has an indefinite length",
        id="indefinite",
    ),
    *[
        pytest.param(
            b"\xd8\x18" + bytes([byte]),
            f"tag 24 must hold a byte string of definite length, not an item with head {byte:02x}",
            id=f"head {byte:02x}",
        )
        for byte in (0x00, 0x3F, 0x5C, 0x5D, 0x5E, 0x60, 0x81, 0xA0, 0xD8, 0xF6, 0xFF)
    ],
]


def first_two(message):
    """What is said when only the first byte of two has come."""
    return message[:-3] if "begins" in message else message


@pytest.mark.parametrize(("data", "message"), BROKEN)
def test_broken_stream_says_what_it_was(data, message):
    assert read([data]) == [malformed(message)]


@pytest.mark.parametrize(("data", "message"), BROKEN)
def test_frames_before_the_fault_are_given(data, message):
    stream = frame(b"one") + frame(b"two") + data
    for chunks in ways(stream):
        *payloads, error = read(chunks)
        assert payloads == [b"one", b"two"]
        assert error.fatal
        assert error.message in (message, first_two(message))


def test_first_wrong_byte_is_enough():
    assert read([b"G"]) == [malformed(TYPED)]
    assert read([b"\x16"]) == [malformed("a frame begins with the bytes d8 18, not 16")]
    assert read([b"\xd8", b"\x19"]) == [malformed("a frame begins with the bytes d8 18, not d8 19")]


@pytest.mark.parametrize("longer", range(2, 5))
def test_payload_over_the_limit_is_refused_at_its_head(longer):
    too_large = Fault("too-large", "the frame announces 301 bytes, the limit is 300", fatal=True)
    begin = b"\xd8\x18" + head(BYTES, LIMIT + 1, longer)
    tr(read, framed(bytes(LIMIT)) + begin, [bytes(LIMIT), too_large])


def test_head_that_announces_everything_is_refused():
    expected = f"the frame announces {2**64 - 1} bytes, the limit is 300"
    tr(read, b"\xd8\x18\x5b" + b"\xff" * 8, [Fault("too-large", expected, fatal=True)])


def test_broken_stream_says_so_each_time_and_keeps_nothing():
    buffer = FrameBuffer(LIMIT)
    buffer.feed(b"nonsense" * 100)
    for _ in range(3):
        with pytest.raises(WireError) as caught:
            buffer.next()
        assert caught.value.message == TYPED
        assert len(buffer) == 0
        buffer.feed(frame(b"good"))
    depth = 0
    trace = caught.value.__traceback__
    while trace is not None:
        trace, depth = trace.tb_next, depth + 1
    assert depth == 2  # this function and `next`: it does not grow with each time


def test_fault_is_no_news_while_frames_stand_before_it():
    buffer = FrameBuffer(LIMIT)
    buffer.feed(frame(b"one") + b"!")
    assert not buffer.broken
    assert buffer.next() == b"one"
    assert not buffer.broken
    with pytest.raises(WireError):
        buffer.next()
    assert buffer.broken


def test_length_counts_what_waits():
    buffer = FrameBuffer(LIMIT)
    buffer.feed(frame(b"one") + frame(b"two")[:-1])
    assert len(buffer) == 6 + 5
    buffer.next()
    assert len(buffer) == 5
    assert buffer.next() is None
    assert len(buffer) == 5


def test_buffer_does_not_grow_with_the_stream():
    """Many frames, split so that there is always a beginning of the next one."""
    buffer = FrameBuffer(LIMIT)
    stream = frame(bytes(100)) * 200
    size = 0
    for i in range(0, len(stream), 70):
        buffer.feed(stream[i : i + 70])
        drain(buffer)
        size = max(size, sys.getsizeof(buffer._buffer))
    assert size < 1000


@pytest.mark.parametrize("shift", range(5))
def test_what_was_taken_is_not_kept(shift):
    """Each read ends at the same place of a frame: behind it, or in the head of the next."""
    buffer = FrameBuffer(LIMIT)
    one = framed(bytes(LIMIT))
    chunk = one[shift:] + one[:shift]
    buffer.feed(one[:shift])
    tracemalloc.start()
    try:
        for _ in range(300):
            buffer.feed(chunk)
            assert drain(buffer) == [bytes(LIMIT)]
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 50 * len(one)
    assert len(buffer) == shift


def test_what_was_read_is_not_kept_when_all_was_taken():
    """Each idle connection would keep its last read."""
    buffer = FrameBuffer(LIMIT)
    read = frame(b"one") + frame(b"two")
    alone = sys.getrefcount(read)
    buffer.feed(read)
    assert sys.getrefcount(read) > alone
    assert buffer.take(1) == [b"one"]
    assert sys.getrefcount(read) > alone
    assert buffer.take(1) == [b"two"]
    assert sys.getrefcount(read) == alone


def test_payload_is_bytes_however_it_came():
    for chunks in ways(frame(b"one") + frame(b"two")):
        assert [type(payload) for payload in read(chunks)] == [bytes, bytes]


def test_half_a_frame_never_holds_more_than_the_limit():
    buffer = FrameBuffer(LIMIT)
    for byte in framed(bytes(LIMIT), longer=4)[:-1]:
        buffer.feed(bytes([byte]))
        assert buffer.next() is None
    assert len(buffer) == LIMIT + MAX_OVERHEAD - 1


@given(st.lists(st.tuples(st.binary(max_size=LIMIT), LONGER), max_size=5), st.data())
def test_any_frames_come_out_of_any_chunks(payloads, data):
    stream = b"".join(framed(payload, longer) for payload, longer in payloads)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    chunks = [stream[i:j] for i, j in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert read(chunks) == [payload for payload, _ in payloads]


@given(st.lists(st.binary(max_size=12) | st.sampled_from([b"\xd8\x18", framed(b"x")]), max_size=6))
def test_any_bytes_give_payloads_or_one_fault(chunks):
    got, whole = read(chunks), read([b"".join(chunks)])
    assert [one for one in got if type(one) is bytes] == [
        one for one in whole if type(one) is bytes
    ]
    # A fault in the first two bytes of a frame is worded by what has come of them.
    assert [type(one) for one in got] == [type(one) for one in whole]


def test_payload_is_not_looked_into():
    bad = arrays(100000)[:LIMIT]
    assert read([frame(bad)]) == [bad]


# ---------------------------------------------------------------------------------------------
# One short frame that is all there is


@pytest.mark.parametrize("size", range(256))
def test_only_payload_is_that_of_a_short_frame(size):
    payload = bytes(range(1, 256))[:size].ljust(size, b"\xff")
    data = frame(payload)
    assert only_payload(data) == payload
    assert only_payload(data + b"\x00") is None
    assert only_payload(data + b"\xd8\x18\x40") is None
    for cut in range(len(data)):
        assert only_payload(data[:cut]) is None


def test_only_payload_needs_the_head_of_a_short_frame():
    payload = bytes(30)
    assert only_payload(frame(bytes(65_536))) is None
    assert only_payload(framed(bytes(300), longer=2)) is None
    for at in range(3):
        for byte in range(256):
            for good in (frame(b""), frame(payload)):
                other = good[:at] + bytes([byte]) + good[at + 1 :]
                assert (only_payload(other) is None) is (other != good)
    # In the shortest form, or as one or two bytes behind the head; the same payload each way.
    for size in (*range(30), 255):
        assert only_payload(framed(bytes(size), longer=1)) == bytes(size)
    for size in range(24):
        assert only_payload(framed(bytes(size), longer=2)) == bytes(size)


@pytest.mark.parametrize("size", [256, 257, 511, 512, 1000, 4091, 65_534, 65_535])
def test_only_payload_is_that_of_a_frame_of_64_kib(size):
    payload = bytes(range(256)) * (size // 256) + bytes(range(size % 256))
    data = frame(payload)
    assert data[:3] == b"\xd8\x18\x59"
    assert only_payload(data) == payload
    for other in (data[:-1], data + b"\x00", data[:5], data[:4], data[:3], b"\xd9" + data[1:]):
        assert only_payload(other) is None
    assert only_payload(data[:3] + b"\x00\x00") == b""


@pytest.mark.parametrize("limit", [MOST_SHORT - 1, MOST_SHORT, MOST_SHORT + 1])
@pytest.mark.parametrize("size", range(MOST_SHORT - 2, MOST_SHORT + 3))
def test_limit_near_the_largest_short_frame(limit, size):
    buffer = FrameBuffer(limit)
    buffer.feed(frame(bytes(size)) * 2)
    if size <= limit:
        assert drain(buffer) == [bytes(size)] * 2
    else:
        message = f"the frame announces {size} bytes, the limit is {limit}"
        assert drain(buffer) == [Fault("too-large", message, fatal=True)]


def test_take_gives_no_more_than_asked_for():
    buffer = FrameBuffer(LIMIT)
    buffer.feed(b"".join(frame(bytes([i])) for i in range(5)) + frame(b"last")[:-1])
    assert buffer.take(0) == []
    assert buffer.take(2) == [b"\x00", b"\x01"]
    assert len(buffer) == 3 * 4 + 6
    assert buffer.take(9) == [b"\x02", b"\x03", b"\x04"]
    assert buffer.take(9) == []
    assert buffer.fault is None
    buffer.feed(b"t!")
    assert buffer.take(9) == [b"last"]
    assert buffer.fault is not None
    assert buffer.take(9) == []


@pytest.mark.parametrize("size", [3, 30, 5000])
@pytest.mark.parametrize("cut", [0, 1, 2, 3, 5, 9])
def test_what_was_taken_is_not_given_again_when_more_comes(size, cut):
    payloads = [bytes([i]) * size for i in range(6)]
    frames = [framed(payload) for payload in payloads]
    buffer = FrameBuffer(5000)
    buffer.feed(b"".join(frames[:3]))
    assert buffer.take(1) == payloads[:1]
    buffer.feed(b"".join(frames[3:])[:cut])
    assert len(buffer) == 2 * len(frames[0]) + cut
    assert buffer.take(1) == payloads[1:2]
    buffer.feed(b"".join(frames[3:])[cut:])
    assert len(buffer) == 4 * len(frames[0])
    assert buffer.take(2) == payloads[2:4]
    assert buffer.take(9) == payloads[4:]
    assert len(buffer) == 0


# ---------------------------------------------------------------------------------------------
# Frames that take many reads

LARGE = bytes(range(256)) * 120


@pytest.mark.parametrize("before", [0, 1, 3, 4, 100])
@pytest.mark.parametrize(
    "sizes",
    [
        [1],
        [2, 1],
        [4095],
        [4096],
        [4097],
        [4095, 1, 4096, 1, 1, 5000, 4095, 4095, 2],
        [10_000, 3],
        [len(LARGE) + 5],
        [len(LARGE) + 6],
        [len(LARGE) + 7],
    ],
)
def test_large_frame_comes_whole_out_of_any_reads(sizes, before):
    """The frames before and behind it, too; `before` is what is there of it with the one before."""
    frames = [b"one", LARGE, b"two", LARGE[:9000], b""]
    stream = b"".join(map(frame, frames))
    buffer = FrameBuffer(len(LARGE))
    at = 6 + before
    buffer.feed(stream[:at])
    got = drain(buffer)
    assert got == [b"one"]
    for size in sizes * (len(stream) // sum(sizes) + 1):
        waited = len(buffer)
        chunk = stream[at : at + size]
        buffer.feed(chunk)
        assert len(buffer) == waited + len(chunk)
        got += drain(buffer)
        at += size
    assert got == frames
    assert len(buffer) == 0


@given(st.lists(st.binary(max_size=40) | st.sampled_from([LARGE, b"!"]), max_size=5), st.data())
def test_what_take_leaves_out_is_counted(payloads, data):
    """So that whoever counts what waits need not ask for the length each time."""
    stream = b"".join(frame(payload) if payload != b"!" else payload for payload in payloads)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    buffer = FrameBuffer(len(LARGE))
    waiting = 0
    for i, j in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        if not buffer.broken:
            buffer.feed(stream[i:j])
            waiting += j - i
        for most in data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=3)):
            got = buffer.take(most)
            waiting -= buffer.dropped + sum(map(len, got))
            assert len(buffer) == waiting


@pytest.mark.parametrize("size", [1, 100, 4095, 4096, 9000])
def test_reads_of_a_large_frame_are_kept_as_they_came_or_joined(size):
    """Not an object for each byte, and no copy of what was a large read."""
    reads = [LARGE[i : i + size] for i in range(0, len(LARGE), size)]
    buffer = FrameBuffer(len(LARGE))
    buffer.feed(frame(LARGE)[:5])
    assert buffer.next() is None
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for one in reads[:-1]:
            buffer.feed(one)
            assert buffer.next() is None
        kept, most = tracemalloc.get_traced_memory()
        kept, most = kept - before, most - before
    finally:
        tracemalloc.stop()
    bytes_kept = sum(map(len, reads[:-1]))
    if size >= 4096:
        assert most < 3000, "the reads themselves are kept"
    else:
        assert kept < 1.5 * bytes_kept + 3000
        assert kept > bytes_kept
        assert len(buffer._parts) <= len(LARGE) / 4096 + 1


def test_small_read_is_not_joined_to_a_large_one():
    """That would copy the large one, with each small one behind it again."""
    large = LARGE[:5000]
    buffer = FrameBuffer(len(LARGE))
    buffer.feed(frame(LARGE)[:5])
    assert buffer.take(9) == []
    for read in (large, LARGE[5000:5010], LARGE[5010:5020]):
        buffer.feed(read)
    assert buffer._parts == [large, LARGE[5000:5020]]
    assert buffer._parts[0] is large
    buffer.feed(LARGE[5020:])
    assert buffer.take(9) == [LARGE]


def test_frame_is_joined_once_and_not_before_it_is_whole():
    buffer = FrameBuffer(len(LARGE))
    buffer.feed(frame(LARGE)[:5])
    assert buffer.take(9) == []
    buffer.feed(LARGE[:5000])
    buffer.feed(LARGE[5000:-1])
    held = buffer._buffer
    assert buffer.take(9) == []
    assert buffer._buffer is held
    assert len(held) == 5
    buffer.feed(LARGE[-1:])
    assert buffer.take(9) == [LARGE]


@pytest.mark.parametrize("behind", [0, 1, 3, 5000])
@pytest.mark.parametrize("size", [4095, 4096, 4097, len(LARGE)])
def test_large_payload_that_waits_is_counted_and_given_first(size, behind):
    """Also while more comes: whoever asks for none, or for one, loses nothing."""
    payload = LARGE[:size]
    stream = frame(payload) + frame(b"two") + frame(LARGE[:5000]) + b"!"
    buffer = FrameBuffer(len(LARGE))
    buffer.feed(stream[:100])
    assert buffer.take(9) == []
    at = len(frame(payload)) + behind
    buffer.feed(stream[100:at])
    assert len(buffer) == at
    assert buffer.take(0) == []
    assert len(buffer) == at
    buffer.feed(stream[at : at + 2])
    buffer.feed(stream[at + 2 :])
    assert len(buffer) == len(stream)
    assert buffer.take(1) == [payload]
    assert len(buffer) == len(stream) - len(frame(payload))
    assert buffer.take(1) == [b"two"]
    assert buffer.take(5) == [LARGE[:5000]]
    assert buffer.take(5) == []
    assert buffer.broken


def test_more_comes_behind_a_large_payload_that_was_taken_alone():
    """What was known of its head is forgotten: the next frames are told by theirs."""
    frames = [LARGE, b"two", b"three", LARGE[:5000]]
    stream = b"".join(map(frame, frames))
    first, second = len(frame(LARGE)), len(frame(LARGE)) + len(frame(b"two"))
    buffer = FrameBuffer(len(LARGE))
    buffer.feed(stream[:100])
    assert buffer.take(1) == []
    buffer.feed(stream[100:second])
    assert buffer.take(1) == [LARGE]
    assert len(buffer) == second - first
    buffer.feed(stream[second:])
    assert buffer.take(9) == frames[1:]


def test_large_payload_is_copied_once_each_way(monkeypatch):
    """Out of parts into a frame; out of reads into a payload."""
    monkeypatch.setattr(framing, "_kept", [sys.maxsize])  # or a block would be asked for, once
    large = bytes(1 << 20)
    reads = [frame(large)[i : i + 65536] for i in range(0, len(large) + 7, 65536)]
    buffer = FrameBuffer(len(large))
    for read in reads[:-1]:
        buffer.feed(read)
        assert buffer.take(1) == []
    tracemalloc.start()
    try:
        sent = frame_of((b"\x83", large))
        assert len(sent) > len(large)
        _, out = tracemalloc.get_traced_memory()
        del sent
        tracemalloc.reset_peak()
        buffer.feed(reads[-1])
        [payload] = buffer.take(1)
        _, into = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert payload == large
    assert len(large) < out < 1.1 * len(large)
    assert len(large) < into < 1.1 * len(large)


def test_memory_of_the_largest_block_is_kept_for_the_next(monkeypatch):
    """Asked for twice as much, once for each new largest, in any frame that is large."""
    asked = []
    monkeypatch.setattr(framing, "_kept", [128 * 1024])
    monkeypatch.setattr(framing, "bytes", asked.append, raising=False)
    for size in (1000, 131_072, 131_073, 200_000, 150_000, 200_000, 200_001):
        framing._expect_more_of(size)
    assert asked == [262_146, 400_000, 400_002]
    for size in (40 << 20, 50 << 20, 1 << 20):
        framing._expect_more_of(size)
    assert asked[3:] == [(32 << 20) - 2048], "glibc learns nothing from a larger one"

    def no_memory(size):
        raise MemoryError

    monkeypatch.setattr(framing, "bytes", no_memory, raising=False)
    monkeypatch.setattr(framing, "_kept", [0])
    framing._expect_more_of(1_000_000)
    assert framing._kept == [1_000_000]
