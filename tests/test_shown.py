"""How sentences show what others have made: on one line, and never long."""

import os
from datetime import UTC, datetime

import numpy
import pytest

from ipcpoll._shown import printable, shown_path, shown_value

# ---------------------------------------------------------------------------------------------
# What is shown of a value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("x" * 40, repr("x" * 40)),
        ("x" * 41, repr("x" * 40) + "…"),
        (b"x" * 41, repr(b"x" * 40) + "…"),
        ("a\nb\x1b", r"'a\nb\x1b'"),
        (10**39, "1" + "0" * 39),
        (10**5000, "an int of many digits"),
        (None, "None"),
        (1.5, "1.5"),
        ([1], "a list"),
        ({}, "a map"),
        ((), "a tuple"),
        (datetime(2024, 1, 1, tzinfo=UTC), "a value of type `datetime`"),
        (numpy.bool_(True), f"a value of type `numpy.{numpy.bool_.__qualname__}`"),
        (type("int", (int,), {"__module__": "of_mine"})(), "a value of type `of_mine.int`"),
    ],
    ids=lambda it: str(type(it)),
)
def test_value_is_shown_in_short(value, words):
    assert shown_value(value) == words


def test_message_of_several_lines_is_shown_on_one():
    assert printable("a message, with ä and a space") == "a message, with ä and a space"
    assert printable("a\nb\x1b[31m\u2028") == r"a\nb\x1b[31m\u2028"


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/run/ä b/s", "/run/ä b/s"),
        ("/run/a\nb", r"/run/a\nb"),
        (os.fsdecode(b"/run/\xff\xe4/s"), r"/run/\xff\xe4/s"),  # as a name of another encoding
    ],
)
def test_path_is_shown_in_characters_that_can_be_printed(path, shown):
    assert shown_path(path) == shown
