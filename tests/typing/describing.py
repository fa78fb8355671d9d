"""What a program says of itself, to a type checker: classes keep their types."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Annotated, Any, assert_type

from msgspec import Meta

import ipcpoll
from ipcpoll.describe import Describe


class Full(ipcpoll.DeclaredError):
    CODE = "full"

    def __init__(self, many: int) -> None:
        super().__init__(f"no room for {many}", [many])


@ipcpoll.about(effect="reads", errors=(Full,), since="1.2", deprecated="use Add", hidden=True)
@dataclass
class Size:
    of: Annotated[str, ipcpoll.SECRET, Meta(max_length=5)] = ""
    grams: Annotated[float, ipcpoll.unit("g"), ipcpoll.step(0.1), ipcpoll.READ_ONLY] = 0.0
    path: Annotated[str, ipcpoll.AT_RESTART] = ""

    def process(self, ctx: list[int]) -> int:
        return len(ctx)


@ipcpoll.about()
@dataclass
class Copy:
    def process(self, ctx: list[int]) -> Generator[ipcpoll.Progress, None, str]:
        yield ipcpoll.Progress(1, 2.5, "half")
        return "done"


assert_type(Size, type[Size])
assert_type(Size("all").grams, float)
assert_type(ipcpoll.Server("name", Size), ipcpoll.Server[list[int]])
assert_type(ipcpoll.SECRET, Meta)
assert_type(Full(3).data, object)

client = ipcpoll.Client("name")
assert_type(client.call(Size("all")), int)
assert_type(client.stream(Copy()), ipcpoll.Stream[ipcpoll.Progress, str])
assert_type(client.call(Describe()), dict[str, Any])
assert_type(
    client.call(
        Describe(
            "ab",
        )
    ),
    dict[str, Any],
)
assert_type(client.submit(Describe()).result(), dict[str, Any])

Size(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Describe(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
ipcpoll.about(effect="harmless")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
ipcpoll.about(errors=(ValueError,))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
ipcpoll.Progress(1).done = 2  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
print(ipcpoll.Sever)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
