"""Errors of a program's own, as classes: raised there, caught here."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from annotated_types import Le
from harness import PATIENCE

import ipcpoll
from ipcpoll import Client, CommandError, DeclaredError, InvalidArguments, Server
from ipcpoll._schema.declared import as_declared
from ipcpoll.adapters import asyncio_loop


class QueueFull(DeclaredError):
    """The queue has no room."""

    CODE = "queue-full"

    def __init__(self, many: int) -> None:
        super().__init__(f"no room for {many} more", {"many": many})
        self.many = many


class Undeclared(DeclaredError):
    CODE = "undeclared"


@ipcpoll.about(errors=(QueueFull,))
@dataclass
class Put:
    many: int

    def process(self, ctx: object) -> int:
        if self.many < 0:
            raise Undeclared("less than nothing")
        if self.many == 0:
            raise CommandError("queue-full", "written by hand", [1])
        raise QueueFull(self.many)


@dataclass
class PutMore(Put):
    pass


@ipcpoll.about(errors=(QueueFull,))
@dataclass
class Few:
    many: Annotated[int, Le(3)]

    def process(self, ctx: object) -> None: ...


@ipcpoll.about(errors=(QueueFull,))
@dataclass
class Each:
    def process(self, ctx: object) -> Iterator[int]:
        yield 1
        raise QueueFull(5)


@pytest.fixture
def client(serve: Callable[..., Server[Any]]) -> Iterator[Client]:
    with Client(serve([Put, PutMore, Few, Each]).address, timeout=PATIENCE) as client:
        yield client


def is_the_same(error: Any) -> bool:
    return (
        type(error) is QueueFull
        and (error.code, error.message, error.data)
        == ("queue-full", "no room for 3 more", {"many": 3})
        and not hasattr(error, "many")  # its `__init__` was not called
        and str(error) == "no room for 3 more [queue-full]"
    )


def test_call_by_class(client: Client) -> None:
    with pytest.raises(QueueFull) as caught:
        client.call(Put(3))
    assert is_the_same(caught.value)
    assert not caught.value.told_to_all


def test_call_by_name(client: Client) -> None:
    with pytest.raises(CommandError) as caught:
        client.request("Put", {"many": 3})
    assert type(caught.value) is CommandError
    assert (caught.value.code, caught.value.data) == ("queue-full", {"many": 3})


def test_code_decides_and_not_who_raised(client: Client) -> None:
    with pytest.raises(QueueFull, match="written by hand") as caught:
        client.call(Put(0))
    assert caught.value.data == [1]


def test_what_is_not_declared_is_a_command_error(client: Client) -> None:
    with pytest.raises(CommandError) as caught:
        client.call(Put(-1))
    assert type(caught.value) is CommandError
    assert caught.value.code == "undeclared"


def test_what_a_base_declares_does_not_count(client: Client) -> None:
    with pytest.raises(CommandError) as caught:
        client.call(PutMore(3))
    assert type(caught.value) is CommandError


def test_errors_of_the_library_are_theirs(client: Client) -> None:
    with pytest.raises(InvalidArguments):
        client.call(Few(9))


def test_map_and_submit(client: Client) -> None:
    with pytest.raises(QueueFull) as caught:
        list(client.map([Put(3)]))
    assert is_the_same(caught.value)
    future = client.submit(Put(3))
    assert is_the_same(future.exception(20))


def test_stream(client: Client) -> None:
    with client.stream(Each()) as stream:
        assert next(iter(stream)) == 1
        with pytest.raises(QueueFull, match="no room for 5 more"):
            next(iter(stream))


def test_awaited(client: Client) -> None:
    async def ask() -> None:
        async with asyncio_loop.AsyncClient(client.address) as awaiting:
            with pytest.raises(QueueFull) as caught:
                await awaiting.call(Put(3))
            assert is_the_same(caught.value)

    asyncio.run(ask())


@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_it_survives_a_copy_without_its_init(again: Any) -> None:
    error = QueueFull(3)
    twin = again(error)
    assert type(twin) is QueueFull
    assert (twin.args, vars(twin)) == (error.args, vars(error))


# ---------------------------------------------------------------------------------------------
# What a class may be


@pytest.mark.parametrize(
    "code",
    [
        *("unknown-command", "invalid-arguments", "internal", "cancelled", "shutting-down"),
        *("busy", "malformed", "too-large"),
    ],
)
def test_code_of_the_library_is_refused(code: str) -> None:
    with pytest.raises(TypeError, match=f"Mine.CODE is `{code}`, which is one of ipcpoll's own"):
        type("Mine", (DeclaredError,), {"CODE": code})


@pytest.mark.parametrize("code", [5, None, "", b"full"])
def test_code_is_text(code: Any) -> None:
    with pytest.raises(TypeError, match=r"Mine\.CODE must be a text"):
        type("Mine", (DeclaredError,), {"CODE": code})


def test_base_without_a_code() -> None:
    class Base(DeclaredError):
        pass

    class Full(Base):
        CODE = "full"

    class Fuller(Full):
        pass

    assert Full("a").code == Fuller("a").code == "full"
    with pytest.raises(TypeError, match="Base has no CODE; raise a class that has one"):
        Base("a")


class Strange(DeclaredError, OSError):
    CODE = "strange"


class Refuses(DeclaredError):
    CODE = "refuses"

    def __new__(cls, *args: object) -> Refuses:
        raise RuntimeError("never")


class Fixed(DeclaredError):
    CODE = "fixed"

    @property
    def code(self) -> str:  # type: ignore[override]
        return "other"


@pytest.mark.parametrize(
    ("kind", "expected"), [(Strange, Strange), (Refuses, CommandError), (Fixed, CommandError)]
)
def test_class_that_can_not_be_made_is_a_command_error(kind: Any, expected: Any) -> None:
    @ipcpoll.about(errors=(kind,))
    @dataclass
    class Cmd:
        def process(self, ctx: object) -> None: ...

    error = as_declared(CommandError(kind.CODE, "why", 5), Cmd)
    assert type(error) is expected
    assert (error.code, error.message, error.data) == (kind.CODE, "why", 5)
