"""What the calls of a client, and of one that awaits, are to a type checker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Generator, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, assert_type

from ipcpoll import AsyncStream, Client, Stream, Subscription, Turn, send
from ipcpoll.adapters import asyncio_loop, trio_loop


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
class Slices:
    def process(self, ctx: object) -> Generator[int | Turn, Any, str]:
        yield Turn()
        return "done"


@dataclass
class Logs:
    async def process(self, ctx: object) -> AsyncIterator[str]:
        yield ""


@dataclass
class Prices:
    def process(self, ctx: object) -> Subscription[float]:
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
assert_type(client.call(Slices()), str)
assert_type(client.call(Logs()), None)
assert_type(client.call(Prices()), None)

assert_type(client.submit(Add(2, 3)), Future[int])
assert_type(client.submit(Add(2, 3), timeout=None).result(), int)
assert_type(client.submit(Find("x")), Future[Found | Missing | None])
assert_type(client.submit(Job()), Future[str])
assert_type(client.submit(Count()), Future[None])
assert_type(client.submit(Prices()), Future[None])
assert_type(client.submit(Ask()), Future[str])
assert_type(client.submit(Promise()), Future[float])
assert_type(client.submit(Later()), Future[bytes])

assert_type(client.stream(Job()), Stream[int, str])
assert_type(client.stream(Slices(), timeout=None), Stream[int, str])
assert_type(client.stream(Count(), resume=True), Stream[int, None])
assert_type(client.stream(Watch()), Stream[int, None])
assert_type(client.stream(Logs()), Stream[str, None])
assert_type(client.stream(Prices()), Stream[float, None])
assert_type(list(client.stream(Prices())), list[float])
assert_type(client.stream(Job()).result, str)
with client.stream(Job()) as pieces:
    assert_type(next(pieces), int)
    assert_type(pieces.each(print), Future[str])

assert_type(send(Add(2, 3), "name"), int)
assert_type(send(Find("x"), "/tmp/path", timeout=2), Found | Missing | None)
assert_type(send(Job(), "name"), str)
assert_type(send(Count(), "name"), None)
assert_type(send(Ask(), "name"), str)
assert_type(send(Later(), "name"), bytes)

assert_type(list(client.map(Add(i, 1) for i in range(3))), list[int])
assert_type(client.map([Find("x")], depth=2), Iterator[Found | Missing | None])
assert_type(client.map([Job(), Job()]), Iterator[str])
assert_type(client.map([Count()], depth=2, timeout=1), Iterator[None])
assert_type(client.map([Prices()]), Iterator[None])
assert_type(client.map([Ask()]), Iterator[str])
assert_type(client.map([Later()]), Iterator[bytes])

assert_type(client.notify(Add(2, 3)), None)
assert_type(client.request("Add", {"a": 1, "b": 2}), Any)

with Client("name") as entered:
    assert_type(entered, Client)

client.call(NoCommand(1))  # type: ignore[arg-type, call-overload, unused-ignore]  # pyright: ignore[reportCallIssue, reportArgumentType]
client.call("Add")  # type: ignore[arg-type, call-overload, unused-ignore]  # pyright: ignore[reportCallIssue, reportArgumentType]
client.submit(NoCommand(1))  # type: ignore[arg-type, call-overload, unused-ignore]  # pyright: ignore[reportCallIssue, reportArgumentType]
client.stream(Add(1, 2))  # type: ignore[arg-type, call-overload, unused-ignore]  # pyright: ignore[reportCallIssue, reportArgumentType]


async def awaited(client: asyncio_loop.AsyncClient | trio_loop.AsyncClient) -> None:
    assert_type(await client.call(Add(2, 3)), int)
    assert_type(await client.call(Find("x"), timeout=1.0), Found | Missing | None)
    assert_type(await client.call(Slices()), str)
    assert_type(await client.call(Prices()), None)
    assert_type(await client.call(Ask()), str)
    assert_type(await client.call(Later()), bytes)
    assert_type(await client.notify(Add(2, 3)), None)
    assert_type(await client.request("Add", {"a": 1, "b": 2}), Any)
    assert_type(client.stream(Slices()), AsyncStream[int, str])
    async for piece in client.stream(Prices(), timeout=None):
        assert_type(piece, float)
    async with client.stream(Job()) as stream:
        assert_type(await anext(stream), int)
        assert_type(stream.result, str)


async def entered_async() -> None:
    async with asyncio_loop.AsyncClient("name") as awaiting:
        assert_type(awaiting, asyncio_loop.AsyncClient)
