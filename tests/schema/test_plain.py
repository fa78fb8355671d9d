"""Values that nothing annotates: the fields of a request by name, and the data of an error."""

import enum
import re
from collections import OrderedDict
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire import PLAIN

from ipcpoll._schema.plain import encode_request, plain_value
from ipcpoll._wire.codec import Decoder, encode


class Level(enum.IntEnum):
    LOW = 1


class Text(str):
    __slots__ = ()


@given(PLAIN)
def test_value_that_is_plain_stays_as_it_is(value):
    assert repr(plain_value(value, "data")) == repr(value)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (date(2024, 2, 29), "data"),
        (Level.LOW, "data"),  # it would arrive as an int
        (Text("a"), "data"),
        (OrderedDict(a=1), "data"),
        ((1, 2), "data"),
        ([0, {"a": {1}}], "data[1]['a']"),
    ],
)
def test_value_that_would_arrive_as_something_else_is_refused_with_its_place(value, place):
    with pytest.raises(TypeError, match=rf"^{re.escape(place)} "):
        plain_value(value, "data")


def test_value_that_holds_itself_is_refused():
    value: list[object] = []
    value.append(value)
    with pytest.raises(ValueError, match=r"^data is nested too deeply, or holds itself$"):
        plain_value(value, "data")


@given(st.text(), st.dictionaries(st.text(), PLAIN, max_size=3))
def test_request_is_its_name_and_its_fields(name, fields):
    decoded = Decoder().decode(b"\x83\xf6" + encode_request(name, fields))
    assert repr(decoded) == repr([None, name, fields])


def test_request_without_fields_has_an_empty_map():
    assert encode_request("Add", None) == encode("Add") + b"\xa0"


@pytest.mark.parametrize(
    ("name", "fields", "sentence"),
    [
        (5, {}, "a request names its command in text, not by 5"),
        ("Add", [1], "Add: the fields of a request are a dict, not a list"),
        ("Add", {1: 1}, "Add: the name of a field is text, not 1"),
        ("Add", {"a": {1}}, "Add.a "),
    ],
)
def test_what_is_no_request_is_refused(name, fields, sentence):
    with pytest.raises(TypeError, match=f"^{re.escape(sentence)}"):
        encode_request(name, fields)


def test_number_that_is_too_large_is_refused_with_its_field():
    with pytest.raises(ValueError, match=r"^Add\.a"):
        encode_request("Add", {"a": 2**64})
