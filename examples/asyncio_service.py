"""A service that works on a queue of jobs, and is changed from a shell while it runs.

    $ asyncio_service.py serve --workers 2 &
    $ asyncio_service.py submit *.iso          their checksums are wanted
    $ asyncio_service.py status
    $ asyncio_service.py pause                 what has begun is finished
    $ asyncio_service.py resume
    $ asyncio_service.py stop

A command can't await. It puts a job into a queue, sets an event or reads what tasks have left.
"""

import argparse
import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field

import ipcpoll
from ipcpoll.adapters import asyncio_loop


@dataclass
class Report:
    """What `Status` answers."""

    unfinished: int
    paused: bool
    done: dict[str, str]
    """By path: the checksum, or what went wrong."""


@dataclass
class Service:
    """The program: a queue, the tasks that work on it, and what they have found."""

    queue: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    unfinished: int = 0
    going: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    done: dict[str, str] = field(default_factory=dict)

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
    """Put files into the queue; answers how many are not finished."""

    paths: list[str]

    def process(self, ctx: Service) -> int:
        for path in self.paths:
            ctx.queue.put_nowait(path)
        ctx.unfinished += len(self.paths)
        return ctx.unfinished


@dataclass
class Status:
    """Answers what waits and what was found."""

    def process(self, ctx: Service) -> Report:
        return Report(ctx.unfinished, not ctx.going.is_set(), ctx.done)


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


def show(report: Report) -> None:
    paused = ", paused" if report.paused else ""
    print(f"{report.unfinished} not finished{paused}, {len(report.done)} done")
    for path, found in report.done.items():
        print(f"{found}  {path}")


def check() -> None:
    """Start a service, and change it by other processes while it runs."""
    with tempfile.TemporaryDirectory() as directory:
        paths = [f"{directory}/{name}" for name in ("first", "second")]
        for path in paths:
            with open(path, "w") as file:
                file.write(path)
        found = [f"{checksum(path)}  {path}\n" for path in paths]
        command = [sys.executable, __file__, "--address", f"{directory}/socket"]

        def ask(*words: str) -> str:
            return subprocess.check_output([*command, *words], text=True)

        with subprocess.Popen([*command, "serve"], stdout=subprocess.PIPE, text=True) as service:
            try:
                assert service.stdout is not None
                assert service.stdout.readline() == f"serving at {directory}/socket\n"
                ask("submit", paths[0])
                assert service.stdout.readline() == found[0]
                ask("pause")
                assert ask("submit", paths[1]) == "1 not finished\n"
                assert ask("status") == "1 not finished, paused, 1 done\n" + found[0]
                ask("resume")
                assert service.stdout.readline() == found[1]
                assert ask("status") == "0 not finished, 2 done\n" + "".join(found)
                ask("stop")
                assert service.wait(20) == 0
            finally:
                service.terminate()
    print("asyncio_service.py: all is well")


def main() -> int:
    parser = argparse.ArgumentParser(description="Checksums of files, some at a time.")
    parser.add_argument("--address", default="asyncio-service", help="a name, or a path with a /")
    parser.add_argument("--workers", type=int, default=2, help="files at the same time (2)")
    parser.add_argument("--check", action="store_true", help="test it, with processes of its own")
    usage = "serve | submit PATH... | status | pause | resume | stop"
    parser.add_argument("words", nargs="*", metavar="WORD", help=usage)
    arguments = parser.parse_intermixed_args()
    if arguments.workers < 1:
        parser.error("--workers: nothing would be done by fewer than 1")
    address: str = arguments.address
    try:
        match arguments.words:
            case [] if arguments.check:
                check()
            case ["serve"]:
                asyncio.run(serve(address, arguments.workers))
            case ["submit", *paths]:  # the other process has a directory of its own
                submit = Submit([os.path.abspath(path) for path in paths])
                print(ipcpoll.send(submit, address), "not finished")
            case ["status"]:
                show(ipcpoll.send(Status(), address))
            case ["pause"]:
                ipcpoll.send(Pause(), address)
            case ["resume"]:
                ipcpoll.send(Resume(), address)
            case ["stop"]:
                ipcpoll.send(Stop(), address)
            case _:
                parser.error(f"say one of: {usage}")
    except (ipcpoll.IpcError, OSError, ValueError) as error:
        print(f"asyncio_service.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
