"""The parts of a message: the id is found without decoding, and wrong parts are named.

Whole messages, however they are split, are in test_protocol.py.
"""

import re

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire import PLAIN, UINT, head

from ipcpoll._wire.messages import (
    cancelled_id,
    is_id,
    parse_error,
    parse_notes,
    parse_options,
    peek_id,
)
from ipcpoll.errors import Busy, CommandError, WireError

IDS = st.integers(0, 2**64 - 1)


@given(IDS, st.lists(PLAIN, max_size=3))
def test_id_is_found_without_decoding_the_rest(call_id, items):
    payload = cbor2.dumps([call_id, *items])
    assert peek_id(payload) == (call_id, 1 + len(cbor2.dumps(call_id)))


@given(st.binary(max_size=12))
def test_id_of_any_bytes_is_an_id_or_none(payload):
    call_id, end = peek_id(payload)
    if call_id is None:
        assert end == 0
    else:
        assert cbor2.loads(payload[1:end]) == call_id


@pytest.mark.parametrize("item", [None, -1, 1.5, "7", b"7", [7], True])
def test_what_is_no_id_is_not_taken_for_one(item):
    assert peek_id(cbor2.dumps([item, "Add", {}])) == (None, 0)
    assert not is_id(item)


@given(IDS)
def test_id_that_is_cut_short_is_none(call_id):
    payload = cbor2.dumps([call_id])
    for length in range(len(payload)):
        assert peek_id(payload[:length]) == (None, 0)


@given(IDS)
def test_cancel_is_an_array_of_one_id_and_nothing_else(call_id):
    cancel = cbor2.dumps([call_id])
    assert cancelled_id(cancel) == call_id
    assert cancelled_id(cancel + b"\x00") is None
    assert cancelled_id(cbor2.dumps([call_id, 0])) is None


def test_id_in_more_bytes_than_it_needs_is_the_same_id():
    for longer in range(5):
        assert cancelled_id(b"\x81" + head(UINT, 7, longer)) == 7


@pytest.mark.parametrize(
    ("options", "seconds"), [({}, None), ({"timeout": None}, None), ({"timeout": 2}, 2.0)]
)
def test_options(options, seconds):
    assert parse_options(options) == seconds


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "a call's options are a map - at `$[3]`"),
        ({"x" * 100: 1}, f"there is no option `{'x' * 80}` - at `$[3]`"),
        ({"timeout": -1}, "a timeout is a number of seconds - at `$[3].timeout`"),
        ({"timeout": True}, "a timeout is a number of seconds - at `$[3].timeout`"),
    ],
)
def test_wrong_options_are_refused(options, sentence):
    with pytest.raises(WireError, match=f"^{re.escape(sentence)}$"):
        parse_options(options)


def test_notes_of_a_newer_server_are_ignored():
    assert parse_notes({"lost": 3, "later": "x"}) == 3
    assert parse_notes({}) == 0


@pytest.mark.parametrize("notes", [None, [], {"lost": -1}, {"lost": True}, {"lost": 1.0}])
def test_wrong_notes_are_refused(notes):
    with pytest.raises(WireError, match=r"^the notes of a piece are a map, `lost` a number"):
        parse_notes(notes)


def test_error_gets_the_class_of_its_code():
    error = parse_error({"code": "busy", "message": "later", "data": {"began": True}})
    assert type(error) is Busy
    assert error.data == {"began": True}
    assert type(parse_error({"code": "of-mine", "message": ""})) is CommandError


@pytest.mark.parametrize("item", [None, {}, {"code": "busy"}, {"code": 5, "message": "later"}])
def test_wrong_error_is_refused(item):
    with pytest.raises(WireError, match=r"^an error is "):
        parse_error(item)
