"""What `Server` takes, and that its `poll` wants the context of its commands."""

from __future__ import annotations

import selectors
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_type

from ipcpoll import Command, Limits, Pollable, Server
from ipcpoll.adapters import select_loop


@dataclass
class Add:
    a: int
    b: int

    def process(self, ctx: list[int]) -> int:
        return self.a + self.b


@dataclass
class Push:
    x: int

    def process(self, ctx: list[int]) -> None:
        ctx.append(self.x)


@dataclass
class Other:
    def process(self, ctx: str) -> None: ...


one = Server("name", Add)
assert_type(one, Server[list[int]])
assert_type(one.poll([1]), int)
assert_type(one.poll([1], max_commands=3, max_seconds=0.5), int)
assert_type(one.fileno(), int)
assert_type(one.pending, bool)
assert_type(one.next_deadline(), float | None)
assert_type(one.address, str)
assert_type(one.stats(), dict[str, int])
one.poll("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

several = Server(Path("/tmp/x"), [Add, Push], limits=Limits(max_clients=3))
several.poll([])
# mypy does not solve the context over a list of classes; pyright does.
several.poll("text")  # type: ignore[arg-type, unused-ignore]  # pyright: ignore[reportArgumentType]

union: Server[list[int]] = Server("name", Add | Push)
union.poll([])

anything = Server[Any]("name", Add | Push)
anything.poll(object())

commands: list[type[Command[list[int], Any]]] = [Add, Push]
assert_type(Server("name", commands), Server[list[int]])

with socket.socket(socket.AF_UNIX) as listening:
    assert_type(Server.from_socket(listening, Add), Server[list[int]])
assert_type(one.reachable(), bool)
one.rebind()

with Server("name", Add) as entered:
    assert_type(entered, Server[list[int]])

pollable: Pollable = one

Server("name", 5)  # type: ignore[arg-type, call-overload, unused-ignore]  # pyright: ignore[reportArgumentType]

selector = selectors.DefaultSelector()
with select_loop.attach(one, [1], selector) as attachment:
    assert_type(attachment, select_loop.SelectorAttachment)

named = Server("name", Add, name="calculator", version="1.2")
assert_type(named, Server[list[int]])
Server("name", Add, version=1.2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
