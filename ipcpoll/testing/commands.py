"""The commands of the cases, plain ones and those that are answered later."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from .._schema.answers import Turn


@dataclass
class Context:
    """What the suite's commands see: the case's log, and what `Do` is to do."""

    log: list[int] = field(default_factory=list)
    do: Callable[[], None] = lambda: None
    end: Callable[[], None] = lambda: None


@dataclass
class Echo:
    """Answers its value."""

    value: int

    def process(self, ctx: Context) -> int:
        ctx.log.append(self.value)
        return self.value


@dataclass
class Work:
    """Answers its value, after a millisecond of the processor's time."""

    value: int

    def process(self, ctx: Context) -> int:
        end = time.thread_time() + 0.001
        while time.thread_time() < end:
            pass
        ctx.log.append(self.value)
        return self.value


@dataclass
class Blob:
    """Answers many bytes."""

    size: int

    def process(self, ctx: Context) -> bytes:
        return bytes(self.size)


@dataclass
class Fail:
    """Raises what it did not foresee."""

    def process(self, ctx: Context) -> None:
        raise ZeroDivisionError("as it should")


@dataclass
class Do:
    """Does what the case says, inside the command."""

    def process(self, ctx: Context) -> int:
        ctx.do()
        return len(ctx.log)


@dataclass
class End:
    """Stops the loop."""

    def process(self, ctx: Context) -> None:
        ctx.end()


COMMANDS: Final = [Echo, Work, Blob, Fail, Do, End]


@dataclass
class LateContext:
    """What the commands see."""

    sleep: Callable[[float], Awaitable[object]]
    futures: list[Future[int]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    asleep: int = 0
    close: Callable[[], None] = lambda: None


@dataclass
class Later:
    """Answers when the case says so."""

    def process(self, ctx: LateContext) -> Future[int]:
        ctx.futures.append(Future())
        return ctx.futures[-1]


@dataclass
class Steps:
    """Answers after so many steps."""

    steps: int

    def process(self, ctx: LateContext) -> Generator[Turn, None, int]:
        for _ in range(self.steps):
            time.sleep(0.001)  # as busy to the loop as work is; clients in threads can run
            ctx.log.append("step")
            yield Turn()
        return self.steps


@dataclass
class Sleep:
    """Sleeps in the loop, and answers."""

    seconds: float

    async def process(self, ctx: LateContext) -> str:
        ctx.asleep += 1
        try:
            await ctx.sleep(self.seconds)
            await ctx.sleep(0)
            return "slept"
        finally:
            ctx.log.append("awake")


@dataclass
class Ticks:
    """Gives pieces, and sleeps in the loop between them."""

    count: int

    async def process(self, ctx: LateContext) -> AsyncIterator[int]:
        try:
            for number in range(self.count):
                await ctx.sleep(0)
                ctx.log.append("tick")
                yield number
        finally:
            ctx.log.append("ended")


@dataclass
class Now:
    """Answers at once."""

    def process(self, ctx: LateContext) -> int:
        return len(ctx.log)


@dataclass
class StopNow:
    """Closes the server, and answers."""

    def process(self, ctx: LateContext) -> str:
        ctx.close()
        return "stopped"


@dataclass
class StopLater:
    """Closes the server, and answers when its future is done."""

    def process(self, ctx: LateContext) -> Future[str]:
        future: Future[str] = Future()
        ctx.close()
        future.set_result("stopped")
        return future


@dataclass
class StopSteps:
    """Closes the server in a step that is not its last one, and answers."""

    def process(self, ctx: LateContext) -> Generator[str | Turn, None, str]:
        yield "stopping"
        ctx.close()
        yield Turn()
        yield "almost"
        return "stopped"


@dataclass
class StopSleep:
    """Sleeps in the loop, closes the server, sleeps, and answers."""

    async def process(self, ctx: LateContext) -> str:
        await ctx.sleep(0.01)
        ctx.close()
        await ctx.sleep(0.01)
        return "stopped"


@dataclass
class StopAtOnce:
    """Closes the server in its first step, and answers."""

    async def process(self, ctx: LateContext) -> str:
        ctx.close()
        return "stopped"


@dataclass
class StopTicks:
    """Closes the server between two pieces, and ends."""

    async def process(self, ctx: LateContext) -> AsyncIterator[str]:
        yield "stopping"
        await ctx.sleep(0)
        ctx.close()
        yield "almost"
        await ctx.sleep(0.01)
        yield "stopped"


LATE_COMMANDS: Final = [
    *[Later, Steps, Sleep, Ticks, Now],
    *[StopNow, StopLater, StopSteps, StopSleep, StopAtOnce, StopTicks],
]
