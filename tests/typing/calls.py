"""What `call`, `map`, `send`, `request` and `notify` are to a type checker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Generator, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, assert_type

from ipcpoll import Client, send


@dataclass
class Add:
    a: int
    b: int

    def process(self, ctx: list[int]) -> int:
        return self.a + self.b


@dataclass
class Print:
    text: str

    def process(self, ctx: list[int]) -> None: ...


@dataclass
class Found:
    path: str


@dataclass
class Missing:
    near: list[str]


@dataclass
class Find:
    name: str

    def process(self, ctx: object) -> Found | Missing | None:
        return None


@dataclass
class Count:
    def process(self, ctx: object) -> Iterator[int]:
        return iter(())


@dataclass
class Job:
    def process(self, ctx: object) -> Generator[int, None, str]:
        yield 1
        return "done"


@dataclass
class Watch:
    def process(self, ctx: object) -> AsyncIterator[int]:
        raise NotImplementedError


@dataclass
class Ask:
    async def process(self, ctx: object) -> str:
        return ""


@dataclass
class Later:
    def process(self, ctx: object) -> Future[bytes]:
        return Future()


@dataclass
class Promise:
    def process(self, ctx: object) -> Awaitable[float]:
        raise NotImplementedError


@dataclass
class NoCommand:
    a: int


client = Client("name", timeout=None)

assert_type(client.call(Add(2, 3)), int)
assert_type(client.call(Add(2, 3), timeout=1.0), int)
assert_type(client.call(Add(2, 3), timeout=None), int)
assert_type(client.call(Print("x")), None)
assert_type(client.call(Find("x")), Found | Missing | None)
assert_type(client.call(Job()), str)
assert_type(client.call(Count()), None)
assert_type(client.call(Watch()), None)
assert_type(client.call(Ask()), str)
assert_type(client.call(Promise()), float)
assert_type(client.call(Later()), bytes)

assert_type(send(Add(2, 3), "name"), int)
assert_type(send(Find("x"), "/tmp/path", timeout=2), Found | Missing | None)
assert_type(send(Job(), "name"), str)
assert_type(send(Count(), "name"), None)
assert_type(send(Ask(), "name"), str)
assert_type(send(Later(), "name"), bytes)

assert_type(list(client.map(Add(i, 1) for i in range(3))), list[int])
assert_type(client.map([Find("x")], depth=2), Iterator[Found | Missing | None])

assert_type(client.notify(Add(2, 3)), None)
assert_type(client.request("Add", {"a": 1, "b": 2}), Any)

with Client("name") as entered:
    assert_type(entered, Client)

client.call(NoCommand(1))  # type: ignore[arg-type, call-overload, unused-ignore]  # pyright: ignore[reportCallIssue, reportArgumentType]
client.call("Add")  # type: ignore[arg-type, call-overload, unused-ignore]  # pyright: ignore[reportCallIssue, reportArgumentType]
