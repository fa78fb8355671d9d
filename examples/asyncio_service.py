"""A service that works on a queue of jobs, and is changed from a shell while it runs.

    $ python asyncio_service.py serve --workers 2 &
    $ python asyncio_service.py submit *.iso          their checksums are wanted
    $ python asyncio_service.py status
    $ python asyncio_service.py pause                 what has begun is finished
    $ python asyncio_service.py resume
    $ python asyncio_service.py stop

A command can't await. It puts a job into a queue, sets an event or reads what tasks have left.
"""

import asyncio
import hashlib
import signal
from dataclasses import dataclass, field

import shell

import ipcpoll
from ipcpoll.adapters import asyncio_loop


@dataclass
class Service:
    """The program: a queue, the tasks that work on it, and what they have found."""

    queue: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    going: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    unfinished: int = 0
    done: dict[str, str] = field(default_factory=dict)
    """By path: the checksum, or what went wrong."""

    async def work(self) -> None:
        """Take one job after the other, until the task is cancelled."""
        while True:
            path = await self.queue.get()
            await self.going.wait()
            try:
                self.done[path] = await asyncio.to_thread(checksum, path)
            except OSError as error:
                self.done[path] = str(error.strerror)
            self.unfinished -= 1
            print(f"{self.done[path]}  {path}", flush=True)


def checksum(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass
class Submit:
    """Put files into the queue; answer how many are not finished."""

    paths: list[str]

    def process(self, ctx: Service) -> int:
        for path in self.paths:
            ctx.queue.put_nowait(path)
        ctx.unfinished += len(self.paths)
        return ctx.unfinished


@dataclass
class Status:
    """Answer what waits and what was found."""

    def process(self, ctx: Service) -> list[str]:
        paused = "" if ctx.going.is_set() else ", paused"
        first = f"{ctx.unfinished} not finished{paused}, {len(ctx.done)} done"
        return [first, *(f"{found}  {path}" for path, found in ctx.done.items())]


@dataclass
class Pause:
    """Begin no more jobs."""

    def process(self, ctx: Service) -> None:
        ctx.going.clear()


@dataclass
class Resume:
    """Begin jobs again."""

    def process(self, ctx: Service) -> None:
        ctx.going.set()


@dataclass
class Stop:
    """End the service. It answers first."""

    def process(self, ctx: Service) -> None:
        ctx.stopping.set()


async def serve(address: str, workers: int) -> None:
    """Work until `Stop` or a signal comes."""
    if workers < 1:
        raise ValueError("--workers: nothing would be done by fewer than 1")
    service = Service()
    service.going.set()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, service.stopping.set)
    with ipcpoll.Server(address, Submit | Status | Pause | Resume | Stop) as server:
        asyncio_loop.attach(server, service, max_seconds=0.01)
        print(f"serving at {server.address}", flush=True)
        tasks = [asyncio.create_task(service.work()) for _ in range(workers)]
        await service.stopping.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def check() -> None:
    with shell.Processes(__file__) as services:
        service = services.start("serve")
        assert shell.next_line(service) == f"serving at {services.address}\n"
        found = f"{checksum(__file__)}  {__file__}\n"
        services.run("submit", __file__)
        assert shell.next_line(service) == found
        services.run("pause")
        assert services.run("submit", services.directory) == "1\n"
        assert services.run("status") == "1 not finished, paused, 1 done\n" + found
        services.run("resume")
        missing = f"Is a directory  {services.directory}\n"
        assert shell.next_line(service) == missing
        assert services.run("status") == "0 not finished, 2 done\n" + found + missing
        services.run("stop")
        assert service.wait() == 0


if __name__ == "__main__":
    line = shell.CommandLine(__doc__, address="asyncio-service", check=check)
    verb = line.add_verb("serve", "Take jobs.", lambda **given: asyncio.run(serve(**given)))
    verb.add_argument("--workers", type=int, default=2, help="files at the same time (2)")
    line.add_commands(Submit, Status, Pause, Resume, Stop)
    line.main()
