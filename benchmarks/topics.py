"""One publisher, many subscribers, some of which do not read: what each piece costs, and who loses.

A thread publishes at a steady rate while the server is polled; the readers live in another process
and only count. Beside it, in the same rounds: the same with a single reader. So the ratio says what
a subscriber more costs.
"""

from __future__ import annotations

import resource
import select
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

from _measure import Options, alternate, ratio, run, table, working_directory

import ipcpoll
from ipcpoll import Subscription, Topic
from ipcpoll._wire.framing import frame

RATE = 10_000
SUBSCRIBERS = 50
SILENT = 5

READERS = """
import select, socket, sys
path, readers, silent, pieces = sys.argv[1], *map(int, sys.argv[2:])
request = bytes.fromhex(sys.stdin.readline())
sockets = [socket.socket(socket.AF_UNIX) for _ in range(readers + silent)]
for each in sockets:
    each.connect(path)
    each.send(request)
watched, seen, by_number = select.epoll(), {}, {}
for each in sockets[:readers]:
    each.setblocking(False)
    watched.register(each, select.EPOLLIN)
    by_number[each.fileno()], seen[each.fileno()] = each, 0
behind = readers
while behind:
    for number, _ in watched.poll():
        had = seen[number]
        seen[number] += by_number[number].recv(1 << 20).count(b"\\xd8\\x18")  # each frame's head
        behind -= had < pieces <= seen[number]
print(min(seen.values()), max(seen.values()))
"""


@dataclass
class Numbers:
    """Gives what is published."""

    def process(self, ctx: Topic[int]) -> Subscription[int]:
        return ctx.subscribe()


@dataclass(frozen=True)
class Sample:
    """One publishing, from the first piece until the last reader has the last."""

    seconds: float
    processor: float  # seconds of this process: publisher, server and all
    longest: float  # seconds of the longest poll
    least: int  # pieces of the reader that got fewest
    most: int
    grown: int  # KiB of memory


def publish(topic: Topic[int], pieces: int) -> None:
    """Publish so many, at the rate."""
    began = time.monotonic()
    done = 0
    while done < pieces:
        due = min(pieces, int((time.monotonic() - began) * RATE))
        while done < due:
            topic.publish(done)
            done += 1
        time.sleep(0.001)


def measure(path: str, readers: int, silent: int, pieces: int) -> Sample:
    """Publish to that many readers, beside that many who don't read."""
    topic = Topic[int](depth=pieces)
    request = frame(b"\x83\x01\x67Numbers\xa0").hex()
    counts = [str(readers), str(silent), str(pieces)]
    with (
        ipcpoll.Server(path, Numbers) as server,
        subprocess.Popen(
            [sys.executable, "-c", READERS, path, *counts],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        print(request, file=process.stdin, flush=True)
        poller = select.poll()
        poller.register(server, select.POLLIN)
        while topic.subscribers < readers + silent:
            poller.poll(100)
            server.poll(topic)
        thread = threading.Thread(target=publish, args=(topic, pieces))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began, processor, longest = time.monotonic(), time.process_time(), 0.0
        thread.start()
        while process.poll() is None:
            if poller.poll(100):
                before = time.monotonic()
                server.poll(topic)
                longest = max(longest, time.monotonic() - before)
        sample = (time.monotonic() - began, time.process_time() - processor, longest)
        thread.join()
        least, most = map(int, process.stdout.read().split())
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    return Sample(*sample, least, most, grown)


def benchmark(options: Options) -> None:
    pieces = 500 if options.quick else 3 * RATE
    with working_directory() as directory:
        path = str(directory / "numbers")
        samples = alternate(
            options.rounds,
            {
                "one reader": lambda: measure(path, 1, 0, pieces),
                "all": lambda: measure(path, SUBSCRIBERS - SILENT, SILENT, pieces),
            },
        )
    options.keep("topic", samples, over=["one reader"])
    print(f"\n{pieces} pieces at {RATE} a second, medians of {options.rounds} rounds.")
    print(f"All: {SUBSCRIBERS - SILENT} readers, and {SILENT} that do not read.\n")
    rows: list[list[str]] = []
    for name, took in samples.items():
        rows.append(
            [
                name,
                f"{statistics.median(each.seconds for each in took):.2f}",
                f"{statistics.median(each.processor for each in took) / pieces * 1e6:.1f}",
                f"{max(each.longest for each in took) * 1000:.1f}",
                f"{min(each.least for each in took)} to {max(each.most for each in took)}",
                f"{max(each.grown for each in took)}",
            ]
        )
    head = ["to", "seconds", "µs of CPU per piece", "longest poll, ms", "pieces got", "KiB grown"]
    table(head, rows)
    costs = {name: [each.processor for each in took] for name, took in samples.items()}
    print(f"All / one reader, processor time: {ratio(costs['all'], costs['one reader'])}")


if __name__ == "__main__":
    run(benchmark, about=__doc__, rounds=5)
