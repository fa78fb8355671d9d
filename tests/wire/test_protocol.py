"""One connection's conversation, either end: any bytes give messages or the peer's error."""

import itertools

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire import (
    ARRAY,
    BYTES,
    CALL_PICTURE,
    IDS,
    LINK_PICTURE,
    NEARLY_STRICT,
    PLAIN,
    TEXT,
    Fault,
    arrays,
    fault,
    framed,
    head,
    pairs,
    parts,
    text,
    tr,
)

from ipcpoll import Limits
from ipcpoll._schema.plain import encode_request
from ipcpoll._wire.codec import Decoder, encode
from ipcpoll._wire.messages import (
    Answer,
    Call,
    Cancel,
    Failure,
    Piece,
    call_payload,
    piece_frame,
)
from ipcpoll._wire.protocol import ClientProtocol, ServerProtocol
from ipcpoll._wire.states import CallState, IllegalTransition, Link
from ipcpoll.errors import Busy, CommandError, FrameTooLarge, InternalError, WireError
from ipcpoll.limits import DEFAULT_LIMITS, LEAST_ERROR

DECODER = Decoder()
SMALL = Limits(max_frame=200, max_answer=200, max_frames_waiting=4)
TYPED = "this socket speaks CBOR frames (d8 18 …), not text: use the ipcpoll client of the program"


def call_payload_plain(call_id: bytes, name: str, fields: dict[str, object]) -> bytes:
    """A call by name, as a client sends it."""
    payload = call_payload(call_id, encode_request(name, fields))
    assert isinstance(payload, bytes)
    return payload


def server_protocol(limits=SMALL):
    return ServerProtocol(limits, DECODER)


def client_protocol(*in_flight, limits=SMALL):
    """A client that waits for the answers of these calls."""
    protocol = ClientProtocol(limits, DECODER)
    for call_id in in_flight:
        protocol.call(call_id, b"\x80")
    return protocol


def message(*items):
    return framed(cbor2.dumps(list(items)))


def call(call_id, name="Add", **fields):
    return message(call_id, name, fields)


def taken(take):
    """Take everything that is there, faults too."""
    got = []
    while True:
        try:
            one = take()
        except WireError as error:
            got.append(fault(error))
            continue
        if one is None:
            return got
        if isinstance(one, Failure):
            one = one._replace(error=parts(one.error))
        got.append(one)


def requests(chunks, protocol=None):
    """What a server makes of chunks, each taken before the next comes."""
    protocol = protocol or server_protocol()
    got = []
    for chunk in chunks:
        protocol.receive(chunk)
        got += taken(protocol.next_request)
    return got


def responses(*in_flight):
    """Return a reader for a client that waits for these calls."""

    def read(chunks):
        protocol = client_protocol(*in_flight)
        got = []
        for chunk in chunks:
            protocol.receive(chunk)
            got += taken(protocol.next_response)
        return got

    return read


def plain_call(call_id, name="Add", fields=None, timeout=None, cancelled=False):
    return Call(call_id, name, fields or {}, timeout, cancelled)


# ---------------------------------------------------------------------------------------------
# Messages, however they are split


REQUESTS = [
    (call(0), plain_call(0)),
    (call(23, a=1), plain_call(23, fields={"a": 1})),
    (call(24, "Push", x=[1, {"y": None}]), plain_call(24, "Push", {"x": [1, {"y": None}]})),
    (call(2**64 - 1, ""), plain_call(2**64 - 1, "")),
    (call(None, "Push", x=1.5), plain_call(None, "Push", {"x": 1.5})),
    (message(7, "Add", {}, {}), plain_call(7)),
    (message(7, "Add", {}, {"timeout": 5}), plain_call(7, timeout=5.0)),
    (message(7, "Add", {}, {"timeout": 0}), plain_call(7, timeout=0.0)),
    (message(None, "Add", {}, {"timeout": 0.25}), plain_call(None, timeout=0.25)),
    (message(7, "Add", {}, {"timeout": None}), plain_call(7)),
    (message(7), Cancel(7)),
    (message(2**32), Cancel(2**32)),
]


@pytest.mark.parametrize(("stream", "expected"), REQUESTS)
def test_request_however_it_is_split(stream, expected):
    tr(requests, stream, [expected])


def test_requests_however_they_are_split():
    """More than may wait at once."""
    streams = [call(i, "Add", a=i) for i in range(6)] + [call(None, "Push", x=1)] * 3 + [message(0)]
    expected = [plain_call(i, fields={"a": i}) for i in range(6)]
    expected += [plain_call(None, "Push", {"x": 1})] * 3 + [Cancel(0)]
    tr(requests, b"".join(streams), expected)


def test_request_in_any_form_of_its_heads():
    payload = head(ARRAY, 3, 4) + head(0, 7, 4) + head(TEXT, 3, 4) + b"Add" + head(5, 0, 4)
    tr(requests, framed(payload, longer=4), [plain_call(7)])


RESPONSES = [
    (message(1, 0, None), Answer(1, None)),
    (message(1, 0, {"a": [1]}), Answer(1, {"a": [1]})),
    (message(1, 2, "one"), Piece(1, "one")),
    (message(1, 2, "one", {"lost": 3}), Piece(1, "one", 3)),
    (message(1, 2, "one", {}), Piece(1, "one")),
    (message(1, 2, "one", {"more": "than is known"}), Piece(1, "one")),
    (
        message(1, 1, {"code": "internal", "message": "why"}),
        Failure(1, (InternalError, "internal", "why", None)),
    ),
    (
        message(1, 1, {"code": "no-level", "message": "why", "data": [9], "more": 1}),
        Failure(1, (CommandError, "no-level", "why", [9])),
    ),
    (
        message(None, 1, {"code": "busy", "message": "why"}),
        Failure(None, (Busy, "busy", "why", None)),
    ),
]


@pytest.mark.parametrize(("stream", "expected"), RESPONSES)
def test_response_however_it_is_split(stream, expected):
    tr(responses(1), stream, [expected])


def test_responses_however_they_are_split():
    stream = message(2, 2, "a") + message(3, 0, 5) + message(2, 2, "b") + message(2, 0, None)
    expected = [Piece(2, "a"), Answer(3, 5), Piece(2, "b"), Answer(2, None)]
    tr(responses(1, 2, 3), stream * 1, expected)


@given(IDS | st.none(), st.text(max_size=20), st.dictionaries(st.text(max_size=5), PLAIN))
def test_call_of_plain_values_comes_back(call_id, name, fields):
    protocol = server_protocol(DEFAULT_LIMITS)
    protocol.receive(framed(call_payload_plain(encode(call_id), name, fields)))
    assert repr(protocol.next_request()) == repr(plain_call(call_id, name, fields))


@given(IDS, PLAIN)
def test_what_the_server_sends_the_client_reads(call_id, value):
    server, client = server_protocol(DEFAULT_LIMITS), client_protocol(limits=DEFAULT_LIMITS)
    for item in ("answer", "error"):
        server.receive(client.call(call_id, call_payload_plain(encode(call_id), "Add", {})))
        assert server.next_request() == plain_call(call_id)
        client.receive(server.piece(call_id, encode(value)))
        assert repr(client.next_response()) == repr(Piece(call_id, value))
        if item == "answer":
            client.receive(server.answer(call_id, encode(value)))
            assert repr(client.next_response()) == repr(Answer(call_id, value))
        else:
            client.receive(server.error(call_id, CommandError("a-code", "why", value)))
            failure = client.next_response()
            assert failure.call_id == call_id
            assert repr(parts(failure.error)) == repr((CommandError, "a-code", "why", value))
        assert not server.calls
        assert not client.calls


def test_notification_and_cancel_of_the_client_are_read_by_the_server():
    server, client = server_protocol(), client_protocol()
    first, second = client.new_id(), client.new_id()
    assert (first, second) == (1, 2)
    server.receive(client.call(first, call_payload_plain(encode(first), "Add", {"a": 1})))
    server.receive(client.notify(call_payload_plain(encode(None), "Push", {})))
    server.receive(client.cancel(first))
    assert taken(server.next_request) == [
        plain_call(first, fields={"a": 1}, cancelled=True),
        plain_call(None, "Push"),
        Cancel(first),
    ]


# ---------------------------------------------------------------------------------------------
# What is no message


def bad(text_, call_id=None, answerable=True):
    return Fault("malformed", text_, call_id, False, answerable)


NO_REQUESTS = [
    # Not CBOR, or not strict
    (b"", bad("the frame is empty")),
    (b"hello", bad("cut short: at least 4 bytes missing - at `$` (byte 1)")),
    (b"GET / HTTP/1.1", bad("6 bytes left over behind the item (byte 8)")),
    (b"\x83\x07", bad("cut short: at least 1 byte missing - at `$[1]` (byte 2)", 7)),
    (b"\x83", bad("cut short: at least 1 byte missing - at `$[0]` (byte 1)")),
    (b"\x83\x18", bad("cut short: at least 1 byte missing - at `$[0]` (byte 2)")),
    (b"\x83\x19\x01", bad("cut short: at least 1 byte missing - at `$[0]` (byte 2)")),
    (b"\x83\x07\x63Add\xa0\x00", bad("1 byte left over behind the item (byte 7)", 7)),
    (b"\x83\x19\x01\x00\x63Add\xa1", bad("cut short: at least 1 byte missing", 256)),
    (b"\x84\x18\xff\x63Add\xa0\xf7", bad("undefined: only false, true and null", 255)),
    (b"\x83\xf6\x63Add\xa1\x61x\xc1\x00", bad("tag 1: tags are not carried", None, False)),
    (b"\x83\x1b" + b"\xff" * 8 + b"\xff", bad("a break (ff) without", 2**64 - 1)),
    (b"\xc1\x83\x07\x63Add\xa0", bad("tag 1: tags are not carried - at `$` (byte 0)")),
    (b"\x9f\x07\x63Add\xa0\xff", bad("array of indefinite length - at `$` (byte 0)")),
    (b"\x83\x07\x63Add" + arrays(65), bad("more than 64 levels - at `$[2][0]", 7)),
    # Not a call
    (b"\xf6", bad("a message is an array: [id, name, {fields}]")),
    (b"\xa1\x61a\x00", bad("a message is an array: [id, name, {fields}]")),
    (b"\x07", bad("a message is an array: [id, name, {fields}]")),
    (b"\x80", bad("a call is [id, name, {fields}], not 0 items")),
    (b"\x82\x07\x63Add", bad("a call is [id, name, {fields}], not 2 items")),
    (b"\x85\x07\x63Add\xa0\xa0\xa0", bad("a call is [id, name, {fields}], not 5 items")),
    (b"\x83\x20\x63Add\xa0", bad("a call's id is unsigned, or null - at `$[0]`")),
    (b"\x83\x61a\x63Add\xa0", bad("a call's id is unsigned, or null - at `$[0]`")),
    (b"\x83\xf5\x63Add\xa0", bad("a call's id is unsigned, or null - at `$[0]`")),
    (b"\x83\x80\x63Add\xa0", bad("a call's id is unsigned, or null - at `$[0]`")),
    (b"\x83\xf9\x3c\x00\x63Add\xa0", bad("a call's id is unsigned, or null - at `$[0]`")),
    (b"\x83\x07\x43Add\xa0", bad("a command's name is text - at `$[1]`", 7)),
    (b"\x83\x07\xf6\xa0", bad("a command's name is text - at `$[1]`", 7)),
    (b"\x83\xf6\x07\xa0", bad("a command's name is text - at `$[1]`", None, False)),
    (b"\x83\x07\x63Add\x80", bad("a command's fields are a map - at `$[2]`", 7)),
    (b"\x83\x07\x63Add\xf6", bad("a command's fields are a map - at `$[2]`", 7)),
    (b"\x83\xf6\x63Add\x80", bad("a command's fields are a map - at `$[2]`", None, False)),
    # Options
    (b"\x84\x07\x63Add\xa0\x80", bad("a call's options are a map - at `$[3]`", 7)),
    (b"\x84\x07\x63Add\xa0\xf6", bad("a call's options are a map - at `$[3]`", 7)),
    (b"\x84\x07\x63Add\xa0\xa1\x61x\x00", bad("there is no option `x` - at `$[3]`", 7)),
    (
        b"\x84\x07\x63Add\xa0\xa1" + text("x" * 100) + b"\x00",
        bad(f"there is no option `{'x' * 80}` - at `$[3]`", 7),
    ),
    (b"\x84\xf6\x63Add\xa0\xa1\x61x\x00", bad("there is no option `x`", None, False)),
    *[
        (
            b"\x84\x07\x63Add\xa0\xa1" + text("timeout") + cbor2.dumps(seconds),
            bad("a timeout is a number of seconds - at `$[3].timeout`", 7),
        )
        for seconds in (-1, -0.5, float("inf"), float("nan"), "5", True, [5])
    ],
    # Not a cancel
    (b"\x81\xf6", bad("a cancel is [id], and an id is unsigned - at `$[0]`")),
    (b"\x81\x20", bad("a cancel is [id], and an id is unsigned - at `$[0]`")),
    (b"\x81\x80", bad("a cancel is [id], and an id is unsigned - at `$[0]`")),
    (b"\x81\xf4", bad("a cancel is [id], and an id is unsigned - at `$[0]`")),
    (b"\x81", bad("cut short: at least 1 byte missing - at `$[0]` (byte 1)")),
    (b"\x81\x07\x00", bad("1 byte left over behind the item (byte 2)")),
]


@pytest.mark.parametrize(
    ("payload", "expected"), NO_REQUESTS, ids=[p.hex() for p, _ in NO_REQUESTS]
)
def test_frame_that_is_no_request_is_refused_and_the_next_is_read(payload, expected):
    """It names the call that it meant, so that only this one fails."""
    protocol = server_protocol()
    (refused, good) = requests([framed(payload) + call(9)], protocol)
    assert refused.message.startswith(expected.message)
    assert refused._replace(message="") == expected._replace(message="")
    assert good == plain_call(9)
    assert protocol.calls.keys() == {9, refused.call_id} - {None}


@pytest.mark.parametrize(("payload", "_expected"), NO_REQUESTS[::4])
def test_frame_that_is_no_request_is_refused_however_it_is_split(payload, _expected):
    stream = call(1) + framed(payload) + call(2)
    first, refused, last = requests([stream])
    tr(requests, stream, [first, refused, last])
    assert (first, last) == (plain_call(1), plain_call(2))


def test_call_that_could_not_be_read_is_in_flight_until_its_error_is_sent():
    protocol = server_protocol()
    [refused] = requests([framed(b"\x83\x07\x63Add\x80")], protocol)
    assert protocol.calls == {7: CallState.IN_FLIGHT}
    sent = protocol.error(refused.call_id, CommandError("malformed", refused.message))
    assert protocol.calls == {}
    assert cbor2.loads(cbor2.loads(sent).value)[:2] == [7, 1]


def test_bad_frame_with_an_id_that_is_in_flight_leaves_that_call_alone():
    """Its answer is still to come, so the error concerns nobody in particular."""
    protocol = server_protocol()
    got = requests([call(7), framed(b"\x83\x07\x63Add\x80")], protocol)
    assert got == [plain_call(7), bad("a command's fields are a map - at `$[2]`")]
    assert protocol.calls == {7: CallState.IN_FLIGHT}


NO_RESPONSES = [
    (b"", "the frame is empty"),
    (b"\x83\x01\x00", "cut short: at least 1 byte missing - at `$[2]` (byte 3)"),
    (b"\xf6", "an answer is [id, kind, item]"),
    (b"\x82\x01\x00", "an answer is [id, kind, item]"),
    (b"\x84\x01\x00\x00\x00", "an answer is [id, kind, item]"),
    (b"\x84\x01\x02\x00\x00", "the notes of a piece are a map, `lost` a number - at `$[3]`"),
    (
        b"\x84\x01\x02\x00\xa1\x64lost\x20",
        "the notes of a piece are a map, `lost` a number - at `$[3]`",
    ),
    (
        b"\x84\x01\x02\x00\xa1\x64lost\xf5",
        "the notes of a piece are a map, `lost` a number - at `$[3]`",
    ),
    (b"\x83\x01\x03\x00", "an answer's kind is 0, 1 or 2, not 3 - at `$[1]`"),
    (b"\x83\x01\x20\x00", "an answer's kind is 0, 1 or 2, not -1 - at `$[1]`"),
    (b"\x83\x01\xf4\x00", "an answer's kind is 0, 1 or 2, not bool - at `$[1]`"),
    (b"\x83\x01\xf9\x3c\x00\x00", "an answer's kind is 0, 1 or 2, not float - at `$[1]`"),
    (b"\x83\x01" + text("x" * 90) + b"\x00", "an answer's kind is 0, 1 or 2, not str - at `$[1]`"),
    (b"\x83\xf6\xf5\xa0", "an answer's kind is 0, 1 or 2, not bool - at `$[1]`"),
    (b"\x83\xf6\x00\x00", "an answer's id is unsigned - at `$[0]`"),
    (b"\x83\xf6\x02\x00", "an answer's id is unsigned - at `$[0]`"),
    (b"\x83\xf5\x00\x00", "an answer's id is unsigned - at `$[0]`"),
    (b"\x83\x20\x00\x00", "an answer's id is unsigned - at `$[0]`"),
    (b"\x83\x02\x00\x00", "an answer to 2, which is not in flight"),
    (b"\x83\x02\x02\x00", "an answer to 2, which is not in flight"),
    (
        b"\x83\x02\x01" + cbor2.dumps({"code": "a", "message": "b"}),
        "an answer to 2, which is not in flight",
    ),
    *[
        (
            b"\x83" + call_id + b"\x01" + cbor2.dumps(item),
            'an error is {"code": text, "message": text} - at `$[2]`',
        )
        for call_id in (b"\x01", b"\xf6")
        for item in (None, [], {}, {"code": "a"}, {"message": "a"}, {"code": 5, "message": "a"})
    ],
]


@pytest.mark.parametrize(("payload", "sentence"), NO_RESPONSES)
def test_frame_that_is_no_response_is_refused(payload, sentence):
    assert responses(1)([framed(payload)]) == [bad(sentence)]


def test_refused_response_answers_nothing():
    protocol = client_protocol(1)
    protocol.receive(framed(b"\x83\x01\x01\xf6") + message(1, 0, 5))
    assert taken(protocol.next_response)[1:] == [Answer(1, 5)]


FATAL = [
    (b"add 2 3\n", Fault("malformed", TYPED, fatal=True)),
    (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", Fault("malformed", TYPED, fatal=True)),
    (
        b"\xd8\x18" + head(BYTES, 201),
        Fault("too-large", "the frame announces 201 bytes, the limit is 200", fatal=True),
    ),
    (
        b"\xd8\x18\x5f",
        Fault("malformed", "the frame's byte string has an indefinite length", fatal=True),
    ),
]


@pytest.mark.parametrize(("data", "expected"), FATAL)
def test_fault_of_the_framing_comes_behind_the_messages_before_it(data, expected):
    """Also behind more of them than may wait at once."""
    stream = b"".join(call(i) for i in range(9)) + data
    tr(requests, stream, [*map(plain_call, range(9)), expected])


@pytest.mark.parametrize(("data", "expected"), FATAL)
def test_fault_of_the_framing_is_told_once_and_nothing_is_read_behind_it(data, expected):
    protocol = server_protocol()
    assert requests([call(1) + data], protocol) == [plain_call(1), expected]
    assert protocol.link is Link.LOST
    assert requests([call(2), data, b""], protocol) == []
    protocol = server_protocol()
    protocol.receive(data)
    protocol.receive(data + call(2))  # before the first fault was taken
    assert taken(protocol.next_request) == [expected]
    assert (protocol.bytes_waiting, len(protocol.waiting)) == (0, 0)
    assert protocol.can_send  # an error, to say why


def test_client_is_told_of_a_broken_framing_too():
    tr(
        responses(1),
        message(1, 0, 5) + b"HTTP",
        [Answer(1, 5), Fault("malformed", TYPED, fatal=True)],
    )


# ---------------------------------------------------------------------------------------------
# Any bytes

FRAMES = st.one_of(
    NEARLY_STRICT.map(framed),
    st.builds(call, IDS, st.text(max_size=5)),
    st.builds(message, IDS),
    st.builds(message, IDS, st.integers(-1, 3), PLAIN),
    st.builds(message, IDS, st.text(max_size=3), PLAIN, PLAIN),
    st.builds(lambda payload: framed(b"\x83" + payload), st.binary(max_size=20)),
    st.builds(lambda payload: framed(b"\x81" + payload), st.binary(max_size=10)),
    st.just(framed(b"")),
    st.binary(max_size=3),
)


@given(st.lists(FRAMES, max_size=8), st.data())
@pytest.mark.parametrize("end", ["server", "client"])
def test_any_bytes_give_messages_or_faults_in_bounded_memory(end, frames, data):
    stream = b"".join(frames)
    size = data.draw(st.integers(1, 60))
    if end == "server":
        protocol = server_protocol()
        take = protocol.next_request
    else:
        protocol = client_protocol(*range(5))
        take = protocol.next_response
    for at in range(0, len(stream), size):
        protocol.receive(stream[at : at + size])
        assert len(protocol.waiting) <= SMALL.max_frames_waiting
        taken(take)
        assert len(protocol.waiting) == 0
        assert protocol.bytes_waiting <= SMALL.max_frame + 11
    protocol.receive(b"")
    assert taken(take) == []
    if end == "server":
        assert not protocol._cancels  # nothing is kept of what was taken


@given(st.lists(FRAMES, max_size=6), st.lists(st.integers(0, 300), max_size=5))
def test_any_bytes_give_the_same_however_they_are_split(frames, cuts):
    """But for `Call.cancelled`, which tells what has come by then."""
    stream = b"".join(frames)
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    chunks = [stream[i:j] for i, j in itertools.pairwise(places) if i < j]

    def read(chunks):
        got = requests(chunks)
        kinds = [one._replace(cancelled=False) if isinstance(one, Call) else one for one in got]
        # A fault in the first two bytes of a frame is worded by what has come of them.
        return [
            one._replace(message="") if isinstance(one, Fault) and one.fatal else one
            for one in kinds
        ]

    assert repr(read(chunks)) == repr(read([stream]))


@given(NEARLY_STRICT | st.binary(max_size=30))
def test_error_that_tells_of_a_fault_is_short(payload):
    """It fits whatever the limits say."""
    for begin in (b"", b"\x83\x07\x63Add"):
        protocol = server_protocol(Limits(max_answer=1))
        for refused in requests([framed(begin + payload)], protocol):
            if isinstance(refused, Fault):
                error = CommandError(refused.code, refused.message)
                assert len(protocol.error(refused.call_id, error)) <= LEAST_ERROR


# ---------------------------------------------------------------------------------------------
# Looking ahead


def test_at_most_so_many_frames_wait():
    protocol = server_protocol()
    stream = b"".join(call(i) for i in range(10))
    protocol.receive(stream)
    assert len(protocol.waiting) == 4
    for i in range(10):
        assert len(protocol.waiting) == min(4, 10 - i)
        assert protocol.next_request() == plain_call(i)
    assert len(protocol.waiting) == 0
    assert protocol.next_request() is None


@pytest.mark.parametrize("count", [3, 4, 5, 8, 9, 30])
def test_all_answers_of_one_read_are_given(count):
    """Nothing more comes that would make the client look."""
    protocol = client_protocol(*range(count))
    protocol.receive(b"".join(message(i, 0, i) for i in range(count)))
    assert taken(protocol.next_response) == [Answer(i, i) for i in range(count)]
    assert (protocol.bytes_waiting, protocol.calls) == (0, {})


def test_what_comes_while_the_most_frames_wait_is_kept():
    """The server reads no further then, but for what it took in already."""
    protocol = server_protocol()
    protocol.receive(b"".join(call(i) for i in range(4)))
    for i in range(4, 8):
        protocol.receive(call(i))
        assert len(protocol.waiting) == 4
    assert taken(protocol.next_request) == [plain_call(i) for i in range(8)]


def test_fault_counts_as_one_that_waits():
    protocol = server_protocol()
    protocol.receive(call(1) + b"!")
    assert len(protocol.waiting) == 2
    protocol.next_request()
    assert len(protocol.waiting) == 1
    with pytest.raises(WireError):
        protocol.next_request()
    assert len(protocol.waiting) == 0


def test_fault_behind_the_frames_that_may_wait_is_found_in_its_turn():
    protocol = server_protocol()
    protocol.receive(b"".join(call(i) for i in range(4)) + b"!")
    assert len(protocol.waiting) == 4
    protocol.next_request()
    assert len(protocol.waiting) == 4  # three and the fault


def test_bytes_that_wait_are_counted():
    protocol = server_protocol()
    payload = cbor2.dumps([1, "Add", {}])
    protocol.receive(framed(payload) + framed(payload)[:4])
    assert protocol.bytes_waiting == len(payload) + 4
    protocol.next_request()
    assert protocol.bytes_waiting == 4


def timed(call_id):
    """A call with a time limit: only that asks when it has arrived."""
    return message(call_id, "Add", {}, {"timeout": 9})


def test_call_arrives_with_its_last_byte():
    protocol = server_protocol()
    protocol.receive(timed(1) + timed(2)[:4], 5.0)
    protocol.receive(timed(2)[4:-1], 6.0)
    protocol.receive(timed(2)[-1:] + timed(None), 7.0)
    protocol.receive(b"", 8.0)
    assert [one.arrived for one in taken(protocol.next_request)] == [5.0, 7.0, 7.0]


def test_call_behind_what_may_wait_arrives_with_its_last_byte_too():
    """Also where frames that are no calls stand between, and calls without a limit."""
    protocol = server_protocol()
    protocol.receive(timed(1) + framed(b"\xf7") + message(1) + call(9), 5.0)
    protocol.receive(b"".join(timed(i) for i in range(2, 9)), 6.0)
    calls = [one for one in taken(protocol.next_request) if isinstance(one, Call)]
    assert [(one.call_id, one.arrived) for one in calls if one.timeout is not None] == [
        (1, 5.0),
        *((i, 6.0) for i in range(2, 9)),
    ]


def test_cancel_behind_its_call_is_seen_before_its_turn():
    protocol = server_protocol()
    protocol.receive(call(1) + call(2) + message(1))
    assert taken(protocol.next_request) == [
        plain_call(1, cancelled=True),
        plain_call(2),
        Cancel(1),
    ]
    assert protocol.calls == {1: CallState.CANCELLED, 2: CallState.IN_FLIGHT}


def test_cancel_that_comes_later_is_not_seen_before():
    protocol = server_protocol()
    assert requests([call(1), message(1)], protocol) == [plain_call(1), Cancel(1)]


def test_cancel_behind_what_may_wait_is_not_seen_before():
    """Four may, and a fifth joins them when the first is taken."""
    protocol = server_protocol()
    protocol.receive(b"".join(call(i) for i in range(5)) + message(0) + message(2))
    assert taken(protocol.next_request)[:3] == [
        plain_call(0),
        plain_call(1),
        plain_call(2, cancelled=True),
    ]


def test_cancel_before_an_id_is_used_again_does_not_concern_the_new_call():
    protocol = server_protocol()
    protocol.receive(call(1) + message(1) + call(1))
    assert protocol.next_request() == plain_call(1, cancelled=True)
    protocol.answer(1, encode(None))
    assert protocol.next_request() == Cancel(1)  # it crossed the answer
    assert protocol.calls == {}
    assert protocol.next_request() == plain_call(1)


def test_cancels_of_an_id_are_counted():
    protocol = server_protocol()
    protocol.receive(message(1) + call(1) + message(1))
    assert taken(protocol.next_request) == [Cancel(1), plain_call(1, cancelled=True), Cancel(1)]
    protocol.answer(1, encode(None))
    protocol.receive(call(1))
    assert protocol.next_request() == plain_call(1)


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(framed(b"\x81\x01\x00"), id="bytes left over"),
        pytest.param(framed(b"\x81\x21"), id="negative"),
        pytest.param(framed(b"\x81\x18"), id="cut short"),
        pytest.param(framed(b"\x81"), id="without an id"),
        pytest.param(framed(b"\x80\x01"), id="no array of one"),
        pytest.param(framed(b"\x81\x02"), id="another id"),
    ],
)
def test_what_is_no_cancel_of_a_call_cancels_nothing(frame):
    protocol = server_protocol()
    protocol.receive(call(1) + frame + call(1))
    assert protocol.next_request() == plain_call(1)
    protocol.answer(1, encode(None))
    assert taken(protocol.next_request)[1:] == [plain_call(1)]


@pytest.mark.parametrize("call_id", [0, 23, 24, 255, 256, 65536, 2**32, 2**64 - 1])
@pytest.mark.parametrize("longer", range(5))
def test_cancel_is_seen_in_any_form_of_its_id(call_id, longer):
    protocol = server_protocol()
    protocol.receive(call(call_id) + framed(b"\x81" + head(0, call_id, longer)))
    assert taken(protocol.next_request) == [plain_call(call_id, cancelled=True), Cancel(call_id)]


# ---------------------------------------------------------------------------------------------
# Every pair of the tables, as the protocol makes it


def lost(protocol):
    protocol.receive(b"!")
    taken(take_of(protocol))


def take_of(protocol):
    return getattr(protocol, "next_request", None) or protocol.next_response


REACH_LINK = {
    "OPEN": lambda protocol: None,
    "HALF_CLOSED": lambda protocol: protocol.receive(b""),
    "HUNG_UP": lambda protocol: protocol.hang_up(),
    "LOST": lost,
    "CLOSED": lambda protocol: protocol.close(),
}


@pytest.fixture(params=["server", "client"])
def either(request):
    return server_protocol() if request.param == "server" else client_protocol(1)


def send(protocol):
    if isinstance(protocol, ServerProtocol):
        return protocol.error(None, Busy("full"))
    return protocol.notify(b"\x80")


@pytest.mark.parametrize(("state", "event", "follow"), list(pairs(LINK_PICTURE)))
def test_event_of_a_connection(either, state, event, follow):
    """What this end does wrong is an `IllegalTransition`; what the peer does is passed over."""
    REACH_LINK[state](either)
    assert either.link.name == state
    legal = follow is not None
    if event == "TAKE":
        either.receive(call(1) if isinstance(either, ServerProtocol) else message(1, 0, 5))
        assert len(taken(take_of(either))) == legal
    elif event == "LOSE":
        either.receive(b"!")
        assert [type(one) for one in taken(take_of(either))] == [Fault] * legal
    elif event == "END":
        either.receive(b"")
    else:
        act = {"SEND": send, "HANG_UP": type(either).hang_up, "CLOSE": type(either).close}[event]
        if legal:
            act(either)
        else:
            with pytest.raises(IllegalTransition):
                act(either)
    assert either.link.name == (follow or state)


@pytest.mark.parametrize(
    ("state", "follow"),
    [(state, follow) for state, event, follow in pairs(LINK_PICTURE) if event == "SEND"],
)
def test_whether_anything_can_be_sent(either, state, follow):
    REACH_LINK[state](either)
    assert either.can_send is (follow is not None)


ITEM = encode(5)
CALL_ACTS = [
    ("CALL", lambda server, client: client.call(1, call_payload_plain(b"\x01", "Add", {}))),
    ("CANCEL", lambda server, client: client.cancel(1)),
    ("PIECE", lambda server, client: server.piece(1, ITEM)),
    ("ANSWER", lambda server, client: server.answer(1, ITEM)),
    ("ANSWER", lambda server, client: server.error(1, Busy("full"))),
]
CALL_FRAMES = [
    ("CALL", call(1), plain_call(1)),
    ("CANCEL", message(1), Cancel(1)),
    ("PIECE", message(1, 2, 5), Piece(1, 5)),
    ("ANSWER", message(1, 0, 5), Answer(1, 5)),
    (
        "ANSWER",
        message(1, 1, {"code": "busy", "message": "full"}),
        Failure(1, (Busy, "busy", "full", None)),
    ),
]


def both_ends(state):
    """Return a server and a client that have come to this state of call 1."""
    server, client = server_protocol(), client_protocol()
    events = {"NONE": [], "IN_FLIGHT": CALL_ACTS[:1], "CANCELLED": CALL_ACTS[:2]}[state]
    for _, act in events:
        server.receive(act(server, client))
    taken(server.next_request)
    assert state_of_call(server) == state_of_call(client) == state
    return server, client


def state_of_call(protocol):
    return protocol.calls.get(1, CallState.NONE).name


def call_pairs(events):
    for (state, event, follow), (name, *rest) in itertools.product(pairs(CALL_PICTURE), events):
        if name == event:
            yield pytest.param(state, follow, event, *rest, id=f"{state}-{event}")


@pytest.mark.parametrize(("state", "follow", "event", "act"), list(call_pairs(CALL_ACTS)))
def test_event_of_a_call_that_this_end_makes(state, follow, event, act):
    server, client = both_ends(state)
    if follow is None:
        with pytest.raises(IllegalTransition):
            act(server, client)
    else:
        act(server, client)
    end = client if event in ("CALL", "CANCEL") else server
    assert state_of_call(end) == (follow or state)


@pytest.mark.parametrize(
    ("state", "follow", "event", "frame", "legal"), list(call_pairs(CALL_FRAMES))
)
def test_event_of_a_call_that_the_peer_makes(state, follow, event, frame, legal):
    server, client = both_ends(state)
    end = server if event in ("CALL", "CANCEL") else client
    illegal = (
        "the id 1 is in flight already - at `$[0]`"
        if event == "CALL"
        else "an answer to 1, which is not in flight"
    )
    end.receive(frame)
    assert taken(take_of(end)) == [bad(illegal) if follow is None else legal]
    assert state_of_call(end) == (follow or state)


def test_call_that_was_forgotten_may_be_made_again(either):
    if isinstance(either, ServerProtocol):
        requests([call(1)], either)
    assert either.calls
    either.forget(1)
    either.forget(1)
    assert either.calls == {}


# ---------------------------------------------------------------------------------------------
# The end of a connection


def test_half_closed_connection_gives_what_came_and_answers_it():
    protocol = server_protocol()
    protocol.receive(call(1) + call(2)[:5])
    protocol.receive(b"")
    assert taken(protocol.next_request) == [plain_call(1)]
    assert cbor2.loads(cbor2.loads(protocol.answer(1, encode(5))).value) == [1, 0, 5]
    assert protocol.link is Link.HALF_CLOSED


def test_connection_that_hung_up_gives_what_came_and_sends_nothing():
    protocol = server_protocol()
    protocol.receive(call(1) + call(None, "Push"))
    protocol.hang_up()
    assert not protocol.can_send
    assert taken(protocol.next_request) == [plain_call(1), plain_call(None, "Push")]
    with pytest.raises(IllegalTransition):
        protocol.answer(1, encode(5))
    protocol.receive(call(2))  # it is read to its end
    assert taken(protocol.next_request) == [plain_call(2)]


def test_closed_connection_gives_nothing(either):
    either.receive(call(1) + b"!")
    either.close()
    either.receive(call(2))
    either.receive(b"")
    assert taken(take_of(either)) == []
    assert (len(either.waiting), either.link) == (0, Link.CLOSED)


# ---------------------------------------------------------------------------------------------
# Limits of what is sent


@pytest.mark.parametrize("call_id", [0, 1, 300])
def test_pieces_that_were_framed_before_are_sent_as_they_are(call_id):
    server = server_protocol()
    assert requests([call(call_id)], server) == [plain_call(call_id)]
    items = [encode("one"), encode([2])]
    first, second = piece_frame(call_id, items[0]), piece_frame(call_id, items[1], 3)
    assert first == piece_frame(call_id, items[0], 0) == message(call_id, 2, "one")
    assert second == message(call_id, 2, [2], {"lost": 3})
    assert server.pieces(call_id, first + second, max(map(len, items))) == first + second
    assert server.calls == {call_id: CallState.IN_FLIGHT}


def test_pieces_over_the_limit_are_told_by_the_largest_item():
    server = server_protocol()
    requests([call(1)], server)
    assert server.pieces(1, b"as they are", 200 - 32) == b"as they are"
    with pytest.raises(FrameTooLarge, match=r"^a piece has 169 bytes, the limit is 200$"):
        server.pieces(1, b"", 200 - 31)
    assert server.calls == {1: CallState.IN_FLIGHT}


def test_pieces_are_for_a_call_in_flight_and_a_peer_who_is_there():
    server = server_protocol()
    with pytest.raises(IllegalTransition, match="PIECE in state NONE"):
        server.pieces(1, b"", 0)
    requests([call(1)], server)
    server.hang_up()
    with pytest.raises(IllegalTransition, match="SEND in state HUNG_UP"):
        server.pieces(1, b"", 0)


def test_answer_over_the_limit_leaves_the_call_in_flight():
    protocol = server_protocol()
    requests([call(1)], protocol)
    item = encode(bytes(200))
    for send_ in (protocol.answer, protocol.piece):
        with pytest.raises(FrameTooLarge, match=r"^the frame has 205 bytes, the limit is 200$"):
            send_(1, item)
    with pytest.raises(FrameTooLarge, match=r"^a piece has 202 bytes, the limit is 200$"):
        protocol.pieces(1, piece_frame(1, item), len(item))
    assert protocol.calls == {1: CallState.IN_FLIGHT}
    assert protocol.answer(1, item[:195])


def test_call_over_the_limit_is_not_in_flight():
    protocol = client_protocol()
    for send_ in (lambda payload: protocol.call(1, payload), protocol.notify):
        with pytest.raises(FrameTooLarge, match=r"^the frame has 201 bytes, the limit is 200$"):
            send_(bytes(201))
    assert protocol.calls == {}
    assert protocol.call(1, bytes(200))


def test_error_may_have_so_many_bytes_whatever_the_limit_says():
    protocol = server_protocol(Limits(max_answer=1))
    assert protocol.error(None, Busy("x" * 900))
    with pytest.raises(FrameTooLarge, match="the limit is 1000"):
        protocol.error(None, Busy("x" * 1000))


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (CommandError(5, "why"), TypeError, "an error's code must be text, not `int`"),
        (CommandError(None, "why"), TypeError, "an error's code must be text, not `NoneType`"),
        (
            CommandError("a", ValueError("b")),
            TypeError,
            "an error's message must be text, not `ValueError`",
        ),
        (CommandError("\ud800", "why"), ValueError, "text with a lone surrogate - at `$.code`"),
        (
            CommandError("a", "why", {"at": 1j}),
            TypeError,
            "a value of type `complex` can't be carried - at `$.data.at`",
        ),
        (
            CommandError("a", "why", ["\ud800"]),
            ValueError,
            "text with a lone surrogate - at `$.data[0]`",
        ),
    ],
)
def test_error_that_can_not_be_carried_leaves_the_call_in_flight(error, kind, words):
    protocol = server_protocol()
    requests([call(1)], protocol)
    with pytest.raises(kind) as caught:
        protocol.error(1, error)
    assert str(caught.value) == words
    assert protocol.calls == {1: CallState.IN_FLIGHT}


def test_message_with_a_lone_surrogate_is_sent_escaped():
    sent = server_protocol().error(None, InternalError("no file 'a\udcff'"))
    assert cbor2.loads(cbor2.loads(sent).value) == [
        None,
        1,
        {"code": "internal", "message": r"no file 'a\udcff'"},
    ]
