"""What `serve_or_send` is to a type checker."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import assert_type

from ipcpoll import Credentials, Server, caller, serve_or_send


@dataclass
class Open:
    path: str

    def process(self, ctx: list[str]) -> int:
        assert_type(caller(), Credentials)
        assert_type(caller().pid, int)
        return len(ctx)


@dataclass
class Quit:
    def process(self, ctx: list[str]) -> None: ...


@dataclass
class Job:
    def process(self, ctx: list[str]) -> Generator[int, None, str]:
        yield 1
        return "done"


server, answer = serve_or_send("viewer", Open | Quit, Open("x"))
assert_type(server, Server[list[str]] | None)
assert_type(answer, int | None)
if server is not None:
    server.poll(["x"])

assert_type(serve_or_send("viewer", [Open, Job], Job())[1], str | None)
assert_type(serve_or_send("viewer", Quit, Quit(), timeout=None)[1], None)
