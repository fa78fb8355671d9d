"""Hazards 34 to 46: what a client can put into frames, sent to a real server over its socket.

The number in a test's name is that of the table in docs/security.md. Rows that other files prove
have their number there in the same way. Each bomb comes as a whole frame, as the value of a field
of a good call, and in a notification, with a good client beside it that must be served meanwhile.
Measured are the CPU seconds of the polls and the memory that the process keeps.
"""

from __future__ import annotations

import gc
import importlib.metadata
import math
import os
import re
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from bombs import (
    COLLISIONS,
    DUPLICATES,
    ID,
    KINDS,
    LENGTHS,
    LEVELS,
    LIMIT,
    PLACES,
    POSITIONS,
    TAGS,
    TRAILING,
    WORDS,
    Bomb,
    array_of,
    as_field,
    as_notification,
    as_whole,
    empties,
    reference,
    tag,
)
from harness import COMMANDS, ROOT, Host, Peer, answers, call, encode, readable, settle
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slowness import slowness
from wire import ARRAY, BYTES, MAP, NEARLY_STRICT, STRICT, TEXT, UINT, head, text

from ipcpoll import CommandError, Limits, Server
from ipcpoll._wire import codec
from ipcpoll._wire.framing import frame

MOST_CPU = 0.1
"""Seconds for one frame, in the best of some rounds: other programs need the processor too."""

MOST_CPU_LEGAL = 0.3
"""The same for the dearest of what is no bomb but good CBOR: a quarter of a million arrays that
are nested, or that a command wants, so that they are made twice. Most of the time goes into making
them, and into the garbage collector's looking at them meanwhile."""

ROUNDS = 3
MOST_ROUNDS = 10  # while the machine is too busy for a good one
MOST_KEPT = 8 * 1024 * 1024
"""Bytes by which the process may have grown when a bomb is dealt with. Pools of the allocator."""

# ---------------------------------------------------------------------------------------------
# Commands that take more than those of the harness


@dataclass
class Grid:
    """Answers how many rows it was given."""

    rows: list[list[int]]

    def process(self, ctx: Host) -> int:
        return len(self.rows)


@dataclass
class Numbers:
    """Answers the sum of what it was given."""

    values: list[int]

    def process(self, ctx: Host) -> int:
        return sum(self.values)


@dataclass
class Words:
    """Answers its text."""

    words: str

    def process(self, ctx: Host) -> str:
        ctx.log.append(self.words)
        return self.words


@dataclass
class Real:
    """Answers its number."""

    number: float

    def process(self, ctx: Host) -> float:
        return self.number


@dataclass
class Tree:
    """A node that holds nodes."""

    inner: list[Tree] = field(default_factory=list)


@dataclass
class Plant:
    """Answers how deep its tree is."""

    tree: Tree

    def process(self, ctx: Host) -> int:
        tree, depth = self.tree, 1
        while tree.inner:
            tree, depth = tree.inner[0], depth + 1
        return depth


@dataclass
class Anything:
    """Answers with what the test put into the host, whatever it promises."""

    def process(self, ctx: Host) -> list[int]:
        assert ctx.do is not None
        answer: list[int] = ctx.do()
        return answer


ALL = [*COMMANDS, Grid, Numbers, Words, Real, Plant, Anything]


# ---------------------------------------------------------------------------------------------
# Sending and measuring


@pytest.fixture(scope="module", autouse=True)
def _without_the_heap_of_the_test_runner() -> Iterator[None]:
    """Keep what pytest holds out of the garbage collector: it is not the server's to look at."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def resident() -> int:
    """Return how many bytes of memory this process has now."""
    gc.collect()
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def cpu_of_a_poll(server: Server[Any], host: Host) -> float:
    """Poll once; return the CPU seconds. A tracer, that of coverage say, is put aside for it."""
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        begin = time.thread_time()
        server.poll(host)
        return time.thread_time() - begin
    finally:
        sys.settrace(tracer)


def deliver(server: Server[Any], peer: Peer, data: bytes, host: Host) -> tuple[float, list[Any]]:
    """Send `data` and poll until the server has nothing to do.

    Returns the CPU seconds of all the polls, and what the client received.
    """
    rest = memoryview(data)
    seconds = 0.0
    got: list[Any] = []
    while True:
        try:
            sent = peer.send_what_fits(rest)
        except (BrokenPipeError, ConnectionResetError):
            sent = len(rest)  # the server closed: nobody reads the rest
        rest = rest[sent:]
        if readable(server):
            seconds += cpu_of_a_poll(server, host)
        got += peer.received()
        if not rest and not readable(server):
            assert not server.pending
            return seconds, got


def attack(
    server: Server[Any], data: bytes, *, closes: bool = False, most_cpu: float = MOST_CPU
) -> tuple[float, list[Any]]:
    """Send a bomb some times, a good client beside it; return the least seconds and the answers.

    Asserts what holds for every bomb: the good client is served, the descriptor falls silent, the
    connection lives on (or ends, where `closes`), the time is short and the memory comes back.
    """
    host = Host()
    best = math.inf
    seen: list[Any] = []
    with Peer(server) as good:
        good.call(0, "Echo", value=0)
        assert answers(server, good, 1, host) == [[0, 0, 0]]
        before = resident()
        rounds = 0
        while rounds < ROUNDS or (best >= most_cpu and rounds < MOST_ROUNDS):
            # A round that is too slow is judged by what the machine does right before it.
            slow = 1.0 if rounds < ROUNDS else slowness()
            rounds += 1
            re.purge()  # what was compiled once must not look cheap
            with Peer(server) as bad:
                good.call(rounds, "Echo", value=rounds)
                seconds, got = deliver(server, bad, data, host)
                best = min(best, seconds / slow)
                assert good.received() == [[rounds, 0, rounds]], "it is served meanwhile"
                assert got == seen or rounds == 1, "the same bytes, the same answer"
                seen = got
                assert bad.ended is closes
                if not closes:
                    bad.call(99, "Echo", value=99)
                    assert answers(server, bad, 1, host) == [[99, 0, 99]]
            settle(server, host)
        assert resident() - before < MOST_KEPT
        assert server.stats()["clients"] == 1
    settle(server, host)
    assert best < most_cpu, f"{best * 1000:.0f} ms"
    return best, seen


# ---------------------------------------------------------------------------------------------
# Each bomb in each position


def cases(corpus: dict[str, Callable[[], Bomb]]) -> Any:
    return pytest.mark.parametrize(
        ("make", "position"),
        [
            pytest.param(make, position, id=f"{name}-{position.__name__[3:]}")
            for name, make in corpus.items()
            for position in POSITIONS
        ],
    )


def shortened(place: str) -> str:
    return place if len(place) <= 40 else place[:40] + "…"


def refuse(
    make_server: Callable[..., Server[Any]],
    caplog: pytest.LogCaptureFixture,
    make: Callable[[], Bomb],
    position: Callable[[bytes], bytes],
) -> float:
    """Send one bomb in one position, and check all that is promised; return the seconds."""
    bomb = make()
    payload = position(bomb.item)
    if len(payload) > LIMIT:
        server = make_server(ALL)
        _, got = attack(server, frame(payload), closes=True)
        sentence = f"the frame announces {len(payload)} bytes, the limit is {LIMIT}"
        assert got == [[None, 1, {"code": "too-large", "message": sentence}]]
    server = make_server(ALL, max_frame=max(len(payload), LIMIT), log_seconds=0)
    seconds, got = attack(server, frame(payload))
    assert server.stats()["faults"] >= ROUNDS
    line = caplog.records[-1].getMessage()
    if position is as_notification:
        assert got == []
        message = line.partition("a client sent a bad frame: ")[2]
    else:
        [[call_id, kind, error]] = got
        assert (call_id, kind) == (ID if position is as_field else None, 1)
        assert error.keys() == {"code", "message"}
        assert error["code"] == "malformed"
        message = error["message"]
        assert line.startswith("a client sent a bad frame: ")
    where = ""
    if bomb.place is not None:
        where = f" - at `{shortened(PLACES[position] + bomb.place)}`"
    assert message.startswith(bomb.sentence + where)
    return seconds


# ---------------------------------------------------------------------------------------------
# 35: huge lengths in a frame's head


@pytest.mark.parametrize("size", [LIMIT + 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1])
def test_hazard_35_length_in_the_head_is_refused_before_a_byte_is_kept(make_server, size):
    server = make_server(ALL)
    begin = b"\xd8\x18" + head(BYTES, size, longer=4)
    attack(server, begin, closes=True)  # the second time nothing is loaded any more
    before = resident()
    _, got = attack(server, begin, closes=True)
    assert resident() - before < 64 * 1024
    sentence = f"the frame announces {size} bytes, the limit is {LIMIT}"
    assert got == [[None, 1, {"code": "too-large", "message": sentence}]]


def test_hazard_35_largest_frame_takes_memory_only_as_it_comes(make_server):
    """A hundred clients announce the most there may be, and send ten bytes of it."""
    server = make_server(ALL)
    begin = b"\xd8\x18" + head(BYTES, LIMIT) + bytes(10)
    peers = []
    try:
        before = resident()
        for _ in range(100):
            peers.append(Peer(server))
            peers[-1].send(begin)
        settle(server)
        assert resident() - before < 2 * 1024 * 1024  # sockets and all; 25 MiB were announced
        assert server.stats()["clients"] == 100
    finally:
        for peer in peers:
            peer.close()


# ---------------------------------------------------------------------------------------------
# 36: not our frames


@pytest.mark.parametrize("longer", range(5))
def test_hazard_36_frame_of_length_zero_is_refused_and_the_next_is_read(make_server, longer):
    server = make_server(ALL)
    _, got = attack(server, b"\xd8\x18" + head(BYTES, 0, longer))
    assert got == [[None, 1, {"code": "malformed", "message": "the frame is empty"}]]


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 2,
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"l\x01\x00\x01" + bytes(100),
        bytes(70_000),
        b"\xff" * 70_000,
        b"\xd9\xd9\xf7" + frame(b"\x83\x01\x64Echo\xa1\x65value\x01"),
        b"i3-ipc" + bytes(8),
    ],
    ids=["HTTP", "TLS", "SSH", "D-Bus", "NUL", "ones", "self-described CBOR", "i3"],
)
def test_hazard_36_stranger_is_told_once_and_the_connection_ends(make_server, data):
    """Nothing behind the first wrong byte is taken for a frame again."""
    server = make_server(ALL)
    good = call(5, "Echo", value=5)
    _, got = attack(server, good + data + good, closes=True)
    assert got[0] == [5, 0, 5]
    [[call_id, kind, error]] = got[1:]
    assert (call_id, kind, error["code"]) == (None, 1, "malformed")


# ---------------------------------------------------------------------------------------------
# 37: lengths inside a payload, and the most items that fit


@cases(LENGTHS)
def test_hazard_37_bomb_of_lengths(make_server, caplog, make, position):
    refuse(make_server, caplog, make, position)


FLAT = LIMIT - 40
FULL = {
    "empty arrays": head(ARRAY, FLAT) + empties(FLAT),
    "empty maps": head(ARRAY, FLAT) + b"\xa0" * FLAT,
    "integers": head(ARRAY, FLAT) + b"\x00" * FLAT,
    "nulls": head(ARRAY, FLAT) + b"\xf6" * FLAT,
    "empty text": head(ARRAY, FLAT) + b"\x60" * FLAT,
    "arrays of an array": head(ARRAY, FLAT // 2) + b"\x81\x80" * (FLAT // 2),
    "arrays 60 deep": head(ARRAY, FLAT // 60) + (b"\x81" * 59 + b"\x80") * (FLAT // 60),
    "maps of an array": head(ARRAY, FLAT // 3) + b"\xa1\x60\x80" * (FLAT // 3),
    "empty arrays on 60 levels": (head(ARRAY, 4364) + empties(4363)) * 60 + b"\x80",
    "one text": head(TEXT, FLAT) + b"x" * FLAT,
    "one byte string": head(BYTES, FLAT) + bytes(FLAT),
    "map of empty arrays": head(MAP, FLAT // 6)
    + b"".join(b"\x64%04x\x80" % i for i in range(FLAT // 6)),
}


NESTED = ["arrays of an array", "arrays 60 deep", "maps of an array"]


@pytest.mark.parametrize("name", FULL)
def test_hazard_37_most_items_that_fit_are_refused_in_time(make_server, name):
    """Good CBOR, to the last byte that the limit allows, where an integer is wanted."""
    server = make_server(ALL)
    most_cpu = MOST_CPU_LEGAL if name in NESTED else MOST_CPU
    payload = as_field(FULL[name])
    assert LIMIT - 2048 < len(payload) <= LIMIT
    _, got = attack(server, frame(payload), most_cpu=most_cpu)
    [[call_id, kind, error]] = got
    assert (call_id, kind, error["code"]) == (ID, 1, "invalid-arguments")
    assert error["message"].startswith("Echo.value must be an int, not ")
    # As a message of its own it is no call.
    _, got = attack(server, frame(FULL[name]), most_cpu=most_cpu)
    [[call_id, kind, error]] = got
    assert (call_id, kind, error["code"]) == (None, 1, "malformed")
    assert "a call is [id, name, {fields}]" in error["message"] or "an array" in error["message"]
    # In a notification it is not answered.
    payload = as_notification(FULL[name])
    assert attack(server, frame(payload), most_cpu=most_cpu)[1] == []


@pytest.mark.parametrize(
    ("command", "name", "items"),
    [("Grid", "rows", b"\x80"), ("Numbers", "values", b"\x01")],
    ids=["empty arrays", "integers"],
)
def test_hazard_37_most_items_that_fit_are_served_where_they_are_wanted(
    make_server, command, name, items
):
    server = make_server(ALL)
    begin = b"\x83" + head(UINT, ID) + text(command) + b"\xa1" + text(name)
    count = LIMIT - len(begin) - 5
    payload = begin + head(ARRAY, count) + items * count
    assert len(payload) == LIMIT
    _, got = attack(server, frame(payload), most_cpu=MOST_CPU_LEGAL)
    assert got == [[ID, 0, count]]


# ---------------------------------------------------------------------------------------------
# 38: depth


@pytest.mark.parametrize("opening", [b"\x81", b"\xa1\x61a"], ids=["arrays", "maps"])
@pytest.mark.parametrize("position", POSITIONS, ids=lambda position: position.__name__[3:])
@pytest.mark.parametrize("depth", [62, 63, 64, 65, 400, 100_000])
def test_hazard_38_depth_63_64_65_400_and_100000(make_server, caplog, depth, position, opening):
    outer = 0 if position is as_whole else 2  # the message's own array, and the fields
    item = opening * depth + b"\x00"
    if depth + outer > 64:
        step = "[0]" if opening == b"\x81" else ".a"
        refuse(make_server, caplog, lambda: Bomb(item, LEVELS, step * (64 - outer)), position)
        return
    server = make_server(ALL)
    _, got = attack(server, frame(position(item)))
    if position is as_notification:
        assert got == []
        assert server.stats()["faults"] == 0, "the place is legal, the type is not"
    elif position is as_field:
        kind = "list" if opening == b"\x81" else "map"
        sentence = f"Echo.value must be an int, not a {kind}"
        assert got == [[ID, 1, {"code": "invalid-arguments", "message": sentence}]]
    else:
        assert [answer[:2] for answer in got] == [[None, 1]]
        assert "levels" not in got[0][2]["message"]


def frames_on_the_stack() -> int:
    count, frame_ = 0, sys._getframe()
    while frame_ is not None:
        count, frame_ = count + 1, frame_.f_back
    return count


def deep_in_the_host(depth: int, action: Callable[[], Any]) -> Any:
    """Call `action` with so many Python frames on the stack."""
    if frames_on_the_stack() >= depth:
        return action()
    return deep_in_the_host(depth, action)


@pytest.mark.parametrize("opening", [b"\x81", b"\xa1\x61a"], ids=["arrays", "maps"])
@pytest.mark.parametrize("depth", [62, 63, 64, 65, 400, 80_000])
def test_hazard_38_depth_when_the_host_is_900_frames_deep(make_server, depth, opening):
    """The recursion limit is the host's, and it has used up nine tenths of it."""
    server = make_server(ALL)
    host = Host()
    with Peer(server) as bad, Peer(server) as good:
        for position in POSITIONS:
            for _ in range(2):
                good.call(1, "Echo", value=1)
                data = frame(position(opening * depth + b"\x00"))
                _, got = deep_in_the_host(900, lambda d=data: deliver(server, bad, d, host))
                assert good.received() == [[1, 0, 1]]
                if position is as_notification:
                    assert got == []
                else:
                    [[call_id, kind, error]] = got
                    assert (call_id, kind) == (ID if position is as_field else None, 1)
                    legal = depth <= 62 and position is as_field
                    assert error["code"] == ("invalid-arguments" if legal else "malformed")
    settle(server, host)


@pytest.mark.parametrize(("levels", "frames"), [(1, 900), (10, 900), (31, 0), (31, 850)])
def test_hazard_38_dataclass_in_itself_as_deep_as_may_be(make_server, levels, frames):
    """Two levels each: the map of its fields, and the list. What checks them recurses in Python."""
    server = make_server(ALL)
    tree: dict[str, Any] = {}
    for _ in range(levels - 1):
        tree = {"inner": [tree]}
    data = call(1, "Plant", tree=tree)
    with Peer(server) as peer:
        _, got = deep_in_the_host(frames, lambda: deliver(server, peer, data, Host()))
        assert got == [[1, 0, levels]]
    settle(server)


@pytest.mark.parametrize("depth", [940, 950, 960, 970, 977])
def test_hazard_38_host_with_hardly_a_frame_left_gets_an_error_for_the_client(make_server, depth):
    """So near the recursion limit it may be the RecursionError of the check or of the command."""
    server = make_server(ALL)
    tree: dict[str, Any] = {}
    for _ in range(30):
        tree = {"inner": [tree]}
    with Peer(server) as peer:
        settle(server)
        peer.call(1, "Plant", tree=tree)
        deep_in_the_host(depth, lambda: server.poll(Host()))
        settle(server)
        [answer] = peer.received()
        assert answer == [1, 0, 31] or answer[2]["code"] == "internal"
        peer.call(2, "Plant", tree=tree)
        assert answers(server, peer, 1) == [[2, 0, 31]]
    settle(server)


# ---------------------------------------------------------------------------------------------
# 39: tags; references above all, and the decoder that is used again


@cases(TAGS)
def test_hazard_39_tag(make_server, caplog, make, position):
    refuse(make_server, caplog, make, position)


def test_hazard_39_nothing_leaks_from_one_payload_to_the_next(make_server):
    """A value that was marked in one payload can't be named in another, by whomever."""
    server = make_server(ALL)
    host = Host()
    secret = text("secret of another client")
    marks = [
        tag(28, secret),
        tag(28, b"\x81" + secret),
        b"\x82" + tag(28, secret) + reference(0),
        tag(256, b"\x82" + secret + tag(25, b"\x00")),
        b"\x81" + tag(258, b"\x81" + secret),
        tag(28, b"\x81" + reference(0)),
        array_of([secret] * 20) + b"\x00",
        head(ARRAY, 3) + secret,
        b"\xa2\x61a" + secret + b"\x61a" + secret,
    ]
    asks = [reference(0), tag(25, b"\x00"), b"\x81" + reference(0), head(ARRAY, 2) + b"\x00"]
    with Peer(server) as one, Peer(server) as two:
        for mark in marks:
            for wrap in POSITIONS:
                deliver(server, one, frame(wrap(mark)), host)
                for ask in asks:
                    for peer in (one, two):
                        _, got = deliver(server, peer, frame(as_field(ask)), host)
                        [[call_id, kind, error]] = got
                        assert (call_id, kind, error["code"]) == (ID, 1, "malformed")
                        assert "secret" not in str(error)
                for peer in (one, two):
                    _, got = deliver(
                        server,
                        peer,
                        call(1, "Words", words="a") + call(2, "Grid", rows=[[1], [], []]),
                        host,
                    )
                    assert got == [[1, 0, "a"], [2, 0, 3]]
    assert set(host.log) == {"a"}
    settle(server)


# ---------------------------------------------------------------------------------------------
# 40, 41, 42: keys, and what stands behind the item


@cases(COLLISIONS)
def test_hazard_40_eight_thousand_colliding_keys_cost_under_5_ms(
    make_server, caplog, make, position
):
    assert refuse(make_server, caplog, make, position) < 0.005


def test_hazard_40_keys_of_text_are_hashed_with_a_secret():
    assert sys.hash_info.algorithm.startswith("siphash")


@cases(DUPLICATES)
def test_hazard_41_duplicate_key(make_server, caplog, make, position):
    refuse(make_server, caplog, make, position)


def test_hazard_41_field_that_stands_twice_reaches_no_command(make_server):
    server = make_server(ALL)
    payload = b"\x83\x07\x64Echo\xa2\x65value\x01\x65value\x02"
    host = Host()
    with Peer(server) as peer:
        _, got = deliver(server, peer, frame(payload), host)
    sentence = "the key 'value' stands twice - at `$[2]` (byte 15)"
    assert got == [[ID, 1, {"code": "malformed", "message": sentence}]]
    assert host.log == []


@cases(TRAILING)
def test_hazard_42_bytes_behind_the_item(make_server, caplog, make, position):
    refuse(make_server, caplog, make, position)


# ---------------------------------------------------------------------------------------------
# 43, 44: kinds of values that surprise


@cases(KINDS)
def test_hazard_43_kind_that_is_not_carried(make_server, caplog, make, position):
    refuse(make_server, caplog, make, position)


HUGE = 10**5000
"""Python refuses to write it in decimal digits: `repr` raises ValueError."""


def fail_with(error: BaseException) -> Any:
    raise error


@pytest.mark.parametrize(
    "do",
    [
        lambda: HUGE,
        lambda: [HUGE],
        lambda: fail_with(KeyError(HUGE)),
        lambda: fail_with(ValueError(HUGE)),
        lambda: fail_with(CommandError("odd", "an odd number", {"number": HUGE})),
        lambda: fail_with(CommandError("odd", HUGE)),
        lambda: fail_with(CommandError(HUGE, "odd")),
    ],
    ids=["answer", "in an answer", "KeyError", "ValueError", "data", "message", "code"],
)
def test_hazard_43_integer_that_can_not_be_shown_is_no_trouble_for_the_log(
    make_server, connect, caplog, do
):
    with pytest.raises(ValueError, match="digits"):
        repr(HUGE)
    server = make_server(ALL)
    peer = connect(server)
    peer.send(call(1, "Anything"), call(None, "Anything"), call(2, "Echo", value=2))
    [[call_id, kind, error], good] = answers(server, peer, 2, Host(do=do))
    assert (call_id, kind) == (1, 1)
    assert error["code"] in ("internal", "odd"), "what refuses keeps its code"
    assert good == [2, 0, 2]
    assert caplog.records
    assert all(len(record.getMessage()) < 700 for record in caplog.records)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STRICT.map(lambda item: item[1]) | NEARLY_STRICT | st.binary(max_size=40))
def test_hazard_43_any_value_at_all_is_answered_with_one_message(server, item):
    host = Host()
    with Peer(server) as peer, Peer(server) as good:
        good.call(1, "Echo", value=1)
        _, got = deliver(server, peer, frame(as_field(item)), host)
        [[call_id, kind, value]] = got
        assert call_id == ID
        if kind == 0:
            assert type(value) is int
            assert value in host.log
        else:
            assert value["code"] in ("malformed", "invalid-arguments")
        assert good.received() == [[1, 0, 1]]
        assert not peer.ended
    settle(server, host)


@cases(WORDS)
def test_hazard_44_value_that_python_would_choke_on(make_server, caplog, make, position):
    refuse(make_server, caplog, make, position)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 5e-324, 1.7976931348623157e308])
def test_hazard_44_floats_of_every_kind_are_carried(make_server, connect, number):
    server = make_server(ALL)
    peer = connect(server)
    # Where an integer is wanted, none of them will do.
    peer.send(call(1, "Real", number=number), call(2, "Echo", value=number))
    [answer, error] = answers(server, peer, 2)
    assert answer[:2] == [1, 0]
    assert repr(answer[2]) == repr(number)
    assert error[2] == {
        "code": "invalid-arguments",
        "message": f"Echo.value must be an int, not {number!r}",
    }


@pytest.mark.parametrize("timeout", [math.nan, math.inf, -math.inf, -1, -0.5])
def test_hazard_44_time_limit_is_a_number_of_seconds(make_server, connect, timeout):
    server = make_server(ALL)
    peer = connect(server)
    peer.send(encode([1, "Echo", {"value": 1}, {"timeout": timeout}]), call(2, "Echo", value=2))
    error, answer = answers(server, peer, 2)
    sentence = "a timeout is a number of seconds - at `$[3].timeout`"
    assert error == [1, 1, {"code": "malformed", "message": sentence}]
    assert answer == [2, 0, 2]


@pytest.mark.parametrize("value", [-(2**63), 2**63 - 1, 2**63, 2**64 - 1])
def test_hazard_44_largest_integers_come_whole(make_server, connect, value):
    server = make_server(ALL)
    peer = connect(server)
    peer.call(1, "Echo", value=value)
    assert answers(server, peer, 1) == [[1, 0, value]]


@pytest.mark.parametrize("words", ["\0", "a\0b", "\0" * 1000, "\ufeff", "\u202e", "\U0010ffff\n"])
def test_hazard_44_text_is_carried_as_it_is_and_the_log_stays_one_line(
    make_server, connect, caplog, words
):
    server = make_server(ALL)
    peer = connect(server)
    host = Host()
    peer.send(
        call(1, "Words", words=words),
        encode([2, words, {}]),
        encode([3, "Echo", {words: 1}]),
        encode([None, words, {}]),
        encode([4, "Echo", {"value": 4}, {words: 1}]),
    )
    answer, name, key, option = answers(server, peer, 4, host)
    assert answer == [1, 0, words]
    assert host.log == [words]
    assert name[2]["code"] == "unknown-command"
    assert key[2]["code"] == "invalid-arguments"
    assert option[2]["code"] == "malformed"
    assert len(caplog.records) == 2  # the notification and the option
    assert all(record.getMessage().isprintable() for record in caplog.records)


# ---------------------------------------------------------------------------------------------
# 45: answers that can't be sent


def cycle() -> Any:
    value: list[Any] = []
    value.append([value, value])
    return value


def deep() -> Any:
    value: Any = 0
    for _ in range(100_000):
        value = [value]
    return value


class Odd:
    """Nothing that can be carried, and its `repr` fails."""

    def __repr__(self) -> str:
        raise ValueError("no")


@pytest.mark.parametrize("carried_by", ["answer", "data of an error"])
@pytest.mark.parametrize(
    "make",
    [cycle, deep, Odd, lambda: [Odd()], lambda: {1: [2j]}, lambda: "\ud800", lambda: {"\ud800": 1}],
    ids=["cycle", "deep", "object", "object inside", "complex", "surrogate", "surrogate in a key"],
)
def test_hazard_45_answer_that_can_not_be_encoded_is_an_error(
    make_server, connect, caplog, make, carried_by
):
    def answer() -> Any:
        return make()

    def refuse_with_data() -> Any:
        raise CommandError("odd", "it is odd", {"data": make()})

    server = make_server(ALL)
    peer = connect(server)
    peer.send(call(1, "Anything"), call(2, "Echo", value=2))
    do = answer if carried_by == "answer" else refuse_with_data
    [[call_id, kind, error], good] = answers(server, peer, 2, Host(do=do))
    # An error keeps its code, and goes without its data.
    code = "internal" if carried_by == "answer" else "odd"
    assert (call_id, kind, error["code"]) == (1, 1, code)
    assert "data" not in error
    assert good == [2, 0, 2]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    peer.call(3, "Echo", value=3)
    assert answers(server, peer, 1) == [[3, 0, 3]]


@pytest.mark.parametrize(
    ("limit", "size"),
    [(1, 1), (10, 7), (1000, 995), (1000, 100_000), (None, 64 * 1024 * 1024)],
    ids=["1 byte", "10 bytes", "1 byte over", "100 times over", "64 MiB"],
)
def test_hazard_45_answer_over_the_limit_is_an_error(make_server, connect, limit, size):
    server = make_server(ALL, **({} if limit is None else {"max_answer": limit}))
    peer = connect(server)
    peer.call(1, "Blob", size=size)
    [[call_id, kind, error]] = answers(server, peer, 1)
    assert (call_id, kind, error["code"]) == (1, 1, "too-large")
    assert error["message"].startswith("the answer of Blob: the frame has ")
    assert error["message"].endswith(f", the limit is {limit or Limits().max_answer}")
    peer.call(2, "Refuse", code="c")
    assert [answer[:2] for answer in answers(server, peer, 1)] == [[2, 1]]
    if limit == 1000:
        peer.call(3, "Blob", size=994)  # with its head it has 1000 bytes
        assert answers(server, peer, 1) == [[3, 0, bytes(994)]]


def test_hazard_45_error_over_the_limit_is_a_shorter_error(make_server, connect):
    server = make_server(ALL, max_answer=1000)
    peer = connect(server)
    for i, data in enumerate([bytes(5000), ["x" * 900] * 3]):

        def refuse_with_much(data: Any = data) -> Any:
            raise CommandError("much", "m" * 5000, data)

        peer.send(call(i, "Anything"), call(50, "Echo", value=5))
        [[call_id, kind, error], good] = answers(server, peer, 2, Host(do=refuse_with_much))
        assert (call_id, kind, error["code"]) == (i, 1, "internal")
        assert "limit" in error["message"]
        assert good == [50, 0, 5]


def test_hazard_45_answer_is_written_out_in_full(make_server, connect):
    """A list that stands in it many times is no reference on the wire."""
    one = [1, 2, 3]

    @dataclass
    class Shared:
        def process(self, ctx: Host) -> list[list[int]]:
            return [one] * 1000

    server = make_server(Shared)
    peer = connect(server)
    peer.call(1, "Shared")
    assert answers(server, peer, 1) == [[1, 0, [one] * 1000]]


def test_hazard_45_memory_that_is_lacking_for_an_answer_is_an_error(
    make_server, connect, monkeypatch
):
    real = codec._head

    def no_bytes(major: int, length: int) -> bytes:
        if major == BYTES << 5:
            raise MemoryError
        return real(major, length)

    server = make_server(ALL)
    peer = connect(server)
    monkeypatch.setattr(codec, "_head", no_bytes)
    peer.send(call(1, "Blob", size=1), call(2, "Echo", value=2))
    error, answer = answers(server, peer, 2)
    assert (error[:2], error[2]["code"]) == ([1, 1], "internal")
    assert "MemoryError" in error[2]["message"]
    assert answer == [2, 0, 2]


# ---------------------------------------------------------------------------------------------
# 46: cbor2 itself


def version(words: str) -> tuple[int, ...]:
    return tuple(int(part) for part in words.split(".")[:3])


def test_hazard_46_cbor2_is_new_enough():
    """6.3.0 is the first that mends every fault that was found in its decoder and encoder."""
    assert version(importlib.metadata.version("cbor2")) >= (6, 3, 0)


def test_hazard_46_no_older_cbor2_can_be_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [floor] = [line for line in project["dependencies"] if line.startswith("cbor2")]
    name, separator, least = floor.partition(">=")
    assert (name, separator) == ("cbor2", ">=")
    assert version(least) >= (6, 3, 0)
