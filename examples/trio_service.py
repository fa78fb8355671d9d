"""Timers that ring, set and cancelled from a shell.

    $ python trio_service.py serve &
    $ python trio_service.py start tea 180
    $ python trio_service.py start "call ann" 0.1
    $ python trio_service.py left
    $ python trio_service.py cancel tea
    $ python trio_service.py stop

A command can't await. It starts a task in the nursery that it gets, or cancels one.
"""

import signal
from dataclasses import dataclass, field

import shell
import trio

import ipcpoll
from ipcpoll.adapters import trio_loop


@dataclass
class Timers:
    """The program: a task for each timer, and how to cancel it."""

    nursery: trio.Nursery
    ends: dict[str, float] = field(default_factory=dict)
    scopes: dict[str, trio.CancelScope] = field(default_factory=dict)

    async def run(self, name: str) -> None:
        with self.scopes[name]:
            await trio.sleep_until(self.ends[name])
            print(f"{name}!", flush=True)
        del self.ends[name], self.scopes[name]


@dataclass
class Start:
    """Ring after some seconds."""

    name: str
    seconds: float

    def process(self, ctx: Timers) -> None:
        if self.name in ctx.ends:
            raise ipcpoll.CommandError("taken", f"{self.name} is running already")
        ctx.ends[self.name] = trio.current_time() + self.seconds
        ctx.scopes[self.name] = trio.CancelScope()
        ctx.nursery.start_soon(ctx.run, self.name)


@dataclass
class Left:
    """Answer which timers run, and how many seconds they have left."""

    def process(self, ctx: Timers) -> list[str]:
        now = trio.current_time()
        return [f"{name} in {ends - now:.0f} s" for name, ends in ctx.ends.items()]


@dataclass
class Cancel:
    """End a timer before it rings."""

    name: str

    def process(self, ctx: Timers) -> None:
        if self.name not in ctx.scopes:
            raise ipcpoll.CommandError("unknown", f"there is no timer {self.name}")
        ctx.scopes[self.name].cancel()


@dataclass
class Stop:
    """End the service. It answers first."""

    def process(self, ctx: Timers) -> None:
        ctx.nursery.cancel_scope.cancel()


async def serve(address: str) -> None:
    """Run until `Stop` or a signal comes. Then the nursery cancels the timers, and serving."""
    with (
        ipcpoll.Server(address, Start | Left | Cancel | Stop) as server,
        trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals,
    ):
        async with trio.open_nursery() as nursery:
            await nursery.start(trio_loop.serve, server, Timers(nursery))
            print(f"serving at {server.address}", flush=True)
            await anext(signals)
            nursery.cancel_scope.cancel()


def check() -> None:
    with shell.Processes(__file__) as services:
        service = services.start("serve")
        assert shell.next_line(service) == f"serving at {services.address}\n"
        services.run("start", "tea", "1000")
        services.run("start", "bread", "2000")
        services.run("start", "egg", "0.01")
        assert shell.next_line(service) == "egg!\n"
        services.run("cancel", "tea")
        assert services.run("left").startswith("bread in ")
        services.run("stop")
        assert service.wait() == 0


if __name__ == "__main__":
    line = shell.CommandLine(__doc__, address="trio-service", check=check)
    line.add_verb("serve", "Run timers.", lambda **given: trio.run(serve, given["address"]))
    line.add_commands(Start, Left, Cancel, Stop)
    line.main()
