"""The servers of one_call.py, each run in a process of its own: ``_servers.py NAME PATH``.

`ping` and `bare` are what ipcpoll is measured against. They serve one client after the other, trust
that one recv brings one message, and have neither limits nor a time budget: nothing to copy.
"""

from __future__ import annotations

import io
import os
import select
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Never

import cbor2
import msgspec

import ipcpoll

PING_BYTES: Final = 24
READ_BYTES: Final = 4096


@dataclass
class Add:
    """The one small command."""

    a: int
    b: int

    def process(self, ctx: None) -> int:
        return self.a + self.b


class NoTags(Mapping[int, Never]):
    """Makes cbor2 refuse each tag."""

    def __getitem__(self, tag: int) -> Never:
        raise ValueError(f"tag {tag}")

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 0


def make_decode() -> Callable[[bytes], Any]:
    """Return a strict decoder of one message: as strict as ipcpoll's, and as fast as can be."""
    stream = io.BytesIO()
    decode = cbor2.CBORDecoder(
        stream,
        semantic_decoders=NoTags(),
        max_depth=64,
        allow_indefinite=False,
        allow_duplicate_keys=False,
        strict_hashable_types=True,
    ).decode

    def decode_one(payload: bytes) -> Any:
        stream.seek(0)
        stream.write(payload)
        stream.truncate()
        stream.seek(0)
        message = decode()
        if stream.tell() != len(payload):
            raise ValueError("bytes are left over")
        return message

    return decode_one


def serve_ping(path: str) -> None:
    """Send back what comes: blocking sockets, no selector, no codec."""
    with listen(path) as listener:
        while True:
            sock, _ = listener.accept()
            with sock:
                while data := sock.recv(PING_BYTES):
                    sock.sendall(data)


def serve_bare(path: str) -> None:
    """Answer `Add` with nothing but epoll, cbor2 and msgspec."""
    decode = make_decode()
    with listen(path) as listener, select.epoll() as epoll:
        epoll.register(listener, select.EPOLLIN)
        clients: dict[int, socket.socket] = {}
        while True:
            for fd, _ in epoll.poll():
                if fd == listener.fileno():
                    sock, _ = listener.accept()
                    sock.setblocking(False)
                    clients[sock.fileno()] = sock
                    epoll.register(sock, select.EPOLLIN)
                    continue
                sock = clients[fd]
                data = sock.recv(READ_BYTES)
                if data:
                    call_id, _, fields = decode(data)
                    command = msgspec.convert(fields, Add)
                    sock.send(cbor2.dumps([call_id, 0, command.process(None)]))
                else:
                    epoll.unregister(sock)
                    clients.pop(fd).close()


def serve_ipcpoll(path: str) -> None:
    """Answer `Add` with a server whose descriptor is watched."""
    with ipcpoll.Server(path, Add) as server, select.epoll() as epoll:
        epoll.register(server, select.EPOLLIN)
        ready()
        while True:
            epoll.poll()
            server.poll(None)


def serve_ipcpoll_in_a_tight_loop(path: str) -> None:
    """Answer `Add` from a loop that never waits."""
    with ipcpoll.Server(path, Add) as server:
        ready()
        while True:
            server.poll(None)


def serve_read_after_accept(path: str) -> None:
    """Answer `Add` as the Rust crate ipc-server does, from a loop that never waits.

    It accepts what waits, reads from each right then, once, at most 1,024 bytes, and takes them for
    one command. Bytes that are not there yet are an error, which drops the connection.
    """
    decode = make_decode()
    with listen(path) as listener:
        listener.setblocking(False)
        while True:
            try:
                sock, _ = listener.accept()
            except BlockingIOError:
                continue
            with sock:
                sock.setblocking(False)
                try:
                    call_id, _, fields = decode(sock.recv(1024))
                    command = msgspec.convert(fields, Add)
                    sock.send(cbor2.dumps([call_id, 0, command.process(None)]))
                except (OSError, cbor2.CBORDecodeError):
                    pass


SERVERS: Final = {
    "ping": serve_ping,
    "bare": serve_bare,
    "ipcpoll": serve_ipcpoll,
    "ipcpoll, tight loop": serve_ipcpoll_in_a_tight_loop,
    "read after accept": serve_read_after_accept,
}


def listen(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    ready()
    return listener


def ready() -> None:
    """Tell the parent that clients may come."""
    print("ready", flush=True)


def end_with_parent() -> None:
    """End this process when its standard input ends, whatever it waits for."""

    def wait() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    end_with_parent()
    SERVERS[sys.argv[1]](sys.argv[2])
