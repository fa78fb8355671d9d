"""The liars of the soak: each fault is injected by a function here, and counted by its name.

Most use a socket by hand. Those of processes fork a child which writes for ever, and stop it or
kill it at a moment that nobody chose, so at any byte. None of them touches the ledger.
"""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress

from fellows import PATIENCE, take_orders
from harness import Peer, call, encode
from soak_commands import FAILURES, Fail, Fork, Nest, Starve

from ipcpoll import Client, CommandError
from ipcpoll._wire.framing import MAGIC, frame

PER_SECOND = 130
"""Faults. They leave most of the time to the good clients."""

MOST_HELD = 20
"""Sockets that are neither read nor closed for a while."""

path = ""
chance = random.Random(0)
held: deque[Peer] = deque()
children: list[tuple[float, int, int]] = []
"""When a child's next signal is due, its pid, and how many times it is to be stopped before."""

WASTE = call(1, "Waste", data=b"x" * 100, size=1000)


def hold(peer: Peer) -> None:
    """Keep a connection for a while, and end the oldest that was kept."""
    held.append(peer)
    if len(held) > MOST_HELD:
        held.popleft().close()


def give_up(peer: Peer, *data: bytes) -> None:
    """Send, and go without a word."""
    with peer, suppress(OSError):
        peer.socket.send(b"".join(data))


# ---------------------------------------------------------------------------------------------
# By hand


def connect_and_leave(peer: Peer) -> None:
    peer.close()


def half_frame_and_leave(peer: Peer) -> None:
    give_up(peer, WASTE[: chance.randrange(1, len(WASTE))])


def half_frame_and_stay(peer: Peer) -> None:
    peer.send_what_fits(WASTE[: chance.randrange(1, len(WASTE))])
    hold(peer)


def one_byte_writes(peer: Peer) -> None:
    """It is slow, and is served: the answer comes."""
    with peer, suppress(BrokenPipeError):  # there was no room for it
        for byte in call(1, "Seen", client=""):
            peer.socket.send(bytes([byte]))
        told(peer, 1)


def never_reading(peer: Peer) -> None:
    with suppress(OSError):
        peer.send_what_fits(call(1, "Waste", data=b"", size=chance.choice([10, 100_000])) * 40)
    hold(peer)


def answers_left_unread(peer: Peer) -> None:
    """The host meets a reset."""
    with peer, suppress(OSError):
        peer.socket.send(WASTE)
        wait_for(peer)


def garbage(peer: Peer) -> None:
    give_up(peer, chance.randbytes(chance.randrange(1, 300)))


def text(peer: Peer) -> None:
    give_up(peer, b"GET / HTTP/1.1\r\n\r\n")


def broken_payload(peer: Peer) -> None:
    """Whole frames which are no request; the connection lives on."""
    with peer, suppress(OSError):
        peer.socket.send(frame(chance.randbytes(20)) + frame(b"\x81" * 90) + encode([1, "No", {}]))
        told(peer, 1)


def wrong_fields(peer: Peer) -> None:
    with peer, suppress(BrokenPipeError):
        peer.socket.send(call(1, "Count", to="many") + call(2, "Count", of=3))
        told(peer, 1)


def too_long_frame(peer: Peer) -> None:
    """It announces 2 MiB, and begins to send them."""
    give_up(peer, MAGIC + b"\x5a\x00\x20\x00\x00", bytes(chance.randrange(20_000)))


def descriptors(peer: Peer) -> None:
    """SCM_RIGHTS: they must not stay in the host."""
    with peer, suppress(OSError), open(os.devnull, "rb") as null:
        socket.send_fds(peer.socket, [call(1, "Seen", client="")], [null.fileno()] * 5)
        told(peer, 1)


def half_close(peer: Peer) -> None:
    """It has said all, and reads to the end."""
    with peer, suppress(OSError):
        peer.socket.send(call(1, "Seen", client=""))
        peer.socket.shutdown(socket.SHUT_WR)
        told(peer, 1)


def cancelled(peer: Peer) -> None:
    """Before its turn, in the midst of its pieces, and what is not there."""
    with peer, suppress(OSError):
        peer.socket.send(call(1, "Count", to=500) + encode([1]) + call(2, "Count", to=10**9))
        wait_for(peer)
        peer.socket.send(encode([2]) + encode([77]))
        told(peer, 2)


def stream_left(peer: Peer) -> None:
    with peer, suppress(OSError):
        peer.socket.send(call(1, "Count", to=10**9))
        wait_for(peer)


def wait_for(peer: Peer) -> None:
    """Wait until something comes."""
    ready, _, _ = select.select([peer.socket], [], [], PATIENCE)
    assert ready, "the host does not answer"


def told(peer: Peer, call_id: int) -> None:
    """Read until a call is answered, or all are told that there is no room."""
    while not peer.ended:
        wait_for(peer)
        for message in peer.received():
            if message[0] is None or (message[0] == call_id and message[1] != 2):
                return


BY_HAND: list[Callable[[Peer], None]] = [
    connect_and_leave,
    half_frame_and_leave,
    half_frame_and_stay,
    one_byte_writes,
    never_reading,
    answers_left_unread,
    garbage,
    text,
    broken_payload,
    wrong_fields,
    too_long_frame,
    descriptors,
    half_close,
    cancelled,
    stream_left,
]


# ---------------------------------------------------------------------------------------------
# Processes


def begin_child(stops: int) -> None:
    """Fork a child that writes without end, and reads at times."""
    pid = os.fork()
    if pid == 0:
        try:
            write_for_ever()
        finally:
            os._exit(0)
    children.append((time.monotonic() + chance.uniform(0.0005, 0.006), pid, stops))


def write_for_ever() -> None:
    """Write in pieces of any size, on a connection of its own. It ends by a signal."""
    luck = random.Random(os.getpid())
    stream = WASTE * 3 + call(2, "Count", to=50) + WASTE
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    while True:
        begin = 0
        while begin < len(stream):
            begin += sock.send(stream[begin : begin + luck.randrange(1, 100)])
        if luck.random() < 0.5:
            sock.recv(1 << 16)


def signal_children(counts: Counter[str], *, all_of_them: bool = False) -> None:
    """Stop, continue or kill the children whose time has come."""
    now = time.monotonic()
    for child in list(children):
        due, pid, stops = child
        if not all_of_them and due > now:
            continue
        children.remove(child)
        if stops and not all_of_them:
            stopping = stops % 2 == 0
            os.kill(pid, signal.SIGSTOP if stopping else signal.SIGCONT)
            counts["SIGSTOP" if stopping else "SIGCONT"] += 1
            children.append((now + chance.uniform(0.002, 0.03), pid, stops - 1))
        else:
            os.kill(pid, signal.SIGKILL)
            counts["SIGKILL"] += 1
            os.waitpid(pid, 0)


# ---------------------------------------------------------------------------------------------
# In the host


def in_the_host(kind: str, client: Client) -> None:
    """Let a command do what commands should not."""
    if kind == "command that raises":
        with suppress(CommandError):
            client.call(Fail(chance.randrange(len(FAILURES))))
    elif kind == "nested loop":
        client.call(Nest(0.002))
    elif kind == "fork":
        client.call(Fork())
    else:
        client.call(Starve())


# Of 1,000 faults; most of the others are by hand.
RARE = {"command that raises": 100, "nested loop": 20, "fork": 8, "no descriptors": 6}
CHILDREN = 60


def at(address: str) -> None:
    """Turn to another host, with other faults, but always the same for a name."""
    global path  # noqa: PLW0603 - a fellow has one host at a time
    path = address
    chance.seed(os.path.basename(address))


def lie(seconds: float) -> dict[str, int]:
    """Inject faults until the time is over, then take everything back; return what was done."""
    counts: Counter[str] = Counter()
    began = time.monotonic()
    done = 0
    with Client(path, timeout=PATIENCE) as client:
        client.request("Seen", {"client": ""})
        while (now := time.monotonic()) < began + seconds:
            if done > (now - began) * PER_SECOND:
                select.select([], [], [], 0.002)
                signal_children(counts)
                continue
            done += 1
            one_fault(client, counts)
            signal_children(counts)
    while held:
        held.popleft().close()
    signal_children(counts, all_of_them=True)
    return counts


def one_fault(client: Client, counts: Counter[str]) -> None:
    """Inject one fault."""
    ticket = chance.randrange(1000)
    for kind, share in RARE.items():
        ticket -= share
        if ticket < 0:
            in_the_host(kind, client)
            counts[kind] += 1
            return
    if ticket < CHILDREN:
        begin_child(chance.choice([0, 2, 2, 4]))
        return
    fault = chance.choice(BY_HAND)
    counts[fault.__name__.replace("_", " ")] += 1
    fault(Peer(path))


if __name__ == "__main__":
    take_orders({"at": at, "lie": lie})
