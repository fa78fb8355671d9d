"""No refusal shows a value that is marked as a secret: neither to the client nor to the log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NewType

import pytest
import wire
from annotated_types import Ge, Len
from harness import Peer, serve_until

import ipcpoll
from ipcpoll import Server
from ipcpoll._schema.commands import resolve

Secret = ipcpoll.SECRET
Number = NewType("Number", Annotated[int, Secret])  # type: ignore[valid-newtype]


@dataclass
class Login:
    user: str
    password: Annotated[str, Secret] = ""


VALUE = "hunter2"
REFUSED: list[tuple[Any, Any]] = [
    (Annotated[int, Secret], VALUE),
    (Annotated[str, Secret], 12345678),
    (Annotated[str, Secret], [VALUE]),
    (Annotated[int, Secret] | None, VALUE),
    (Annotated[int | None, Secret], VALUE),
    (Annotated[int | bytes, Secret, "a note"], VALUE),
    (list[Annotated[str, Secret]], VALUE),
    (list[Annotated[int, Secret]], [1, VALUE]),
    (set[Annotated[int, Secret]], [12345678, 12345678]),
    (tuple[int, Annotated[int, Secret]], [1, VALUE]),
    (dict[str, Annotated[int, Secret]], {"a": VALUE}),
    (dict[Annotated[Literal["a", "b"], Secret], int], {VALUE: 1}),
    (dict[Annotated[int, Secret], int], {VALUE: 1}),
    (Annotated[dict[int, int], Secret], {VALUE: 1}),
    (Annotated[Literal["a", "b"], Secret], VALUE),
    (Annotated[str, Len(1, 3), Secret], VALUE),
    (Annotated[str, Secret, Len(1, 3)], VALUE),
    (Annotated[list[int], Len(1, 3), Secret], VALUE),
    (Annotated[Number, Ge(99999999)], 12345678),
    (Annotated[Login, Secret], {"user": VALUE, "pass": 1}),
    (Login, {"user": "a", "password": 12345678}),
    (list[Login], [{"user": "a", "password": 12345678}]),
]


def shows(text: str) -> bool:
    return VALUE in text or "12345678" in text


def refused_by(function: Callable[[], Any]) -> list[Exception]:
    try:
        function()
    except Exception as error:
        return [error]
    return []  # clients do not look at constraints


NAMES = [str(annotation)[:70] for annotation, _ in REFUSED]


@pytest.mark.parametrize(("annotation", "plain"), REFUSED, ids=NAMES)
def test_refusal_says_the_place_and_no_value(annotation: Any, plain: Any) -> None:
    command = resolve(wire.command(annotation, annotation))
    for error in (
        *refused_by(lambda: command.bind({"x": plain})),
        *refused_by(lambda: command.encode_answer(plain)),
        *refused_by(lambda: command.decode_answer(plain)),
        *refused_by(lambda: command.encode_call(b"", command.cls(plain))),
    ):
        assert not shows(str(error))
        assert str(error).startswith("Cmd")
        assert error.__suppress_context__ or not shows(str(error.__context__))
    with pytest.raises(Exception, match=r"^Cmd\.x.* does not fit; it is a secret"):
        command.bind({"x": plain})


def test_what_fits_is_taken() -> None:
    command = resolve(wire.command(Annotated[str, Len(1, 9), Secret] | None))
    assert command.bind({"x": VALUE}).x == VALUE
    assert command.bind({"x": None}).x is None
    payload = command.encode_call(b"\x01", command.cls(VALUE))
    assert isinstance(payload, bytes)
    assert VALUE.encode() in payload


def test_its_neighbours_are_shown() -> None:
    with pytest.raises(Exception, match=r"Cmd\.x\.user must be a str, not 5"):
        resolve(wire.command(Login)).bind({"x": {"user": 5, "password": VALUE}})


def test_log_shows_none(
    make_server: Callable[..., Server[Any]],
    connect: Callable[..., Peer],
    caplog: pytest.LogCaptureFixture,
) -> None:
    @dataclass
    class Set:
        password: Annotated[str, Len(1, 3), Secret]

        def process(self, ctx: object) -> Annotated[str, Len(1, 3), Secret]:
            return VALUE

    server = make_server([Set])
    peer = connect(server)
    with caplog.at_level(logging.DEBUG):
        peer.call(None, "Set", password=VALUE)  # what is wrong with a notification is logged
        peer.call(1, "Set", password=VALUE)
        peer.call(2, "Set", password="ab")
        messages: list[Any] = []
        serve_until(server, lambda: messages.extend(peer.received()) or len(messages) == 2, None)
    assert [message[2]["code"] for message in messages] == ["invalid-arguments", "internal"]
    assert caplog.records
    assert not shows(caplog.text + repr(messages))
