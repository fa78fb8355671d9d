"""Both ends of the libraries that peers.py measures ipcpoll beside: ``_peers.py NAME PATH`` serves.

Each is used as its own documentation shows for one program that calls another over a Unix socket,
with its defaults. Those that carry bytes (pyzmq, pynng, asyncio, gRPC) carry the same typed command
with the same strict codec as the bare loop; the others have formats of their own, and check less.
A library that is not installed is not imported.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing.connection as connections
import struct
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, TypeAlias

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # what all benchmarks share

import cbor2
import msgspec
from _calls import Call, Opened
from _servers import Add, end_with_parent, make_decode, ready

AsyncOpened: TypeAlias = Callable[[str], AsyncGenerator[Callable[[], Awaitable[object]]]]

LENGTH: Final = struct.Struct(">I")


def answering() -> Callable[[bytes], bytes]:
    """Return what answers one command, as the bare loop does."""
    decode = make_decode()

    def answer(data: bytes) -> bytes:
        call_id, _, fields = decode(data)
        command = msgspec.convert(fields, Add)
        return cbor2.dumps([call_id, 0, command.process(None)])

    return answer


def request() -> bytes:
    return cbor2.dumps([1, "Add", {"a": 2, "b": 3}])


# ---------------------------------------------------------------------------------------------
# multiprocessing.connection


def serve_multiprocessing(path: str) -> None:
    with connections.Listener(path, "AF_UNIX") as listener:
        ready()
        while True:
            with listener.accept() as connection:
                try:
                    while True:
                        connection.send(connection.recv().process(None))
                except EOFError:
                    pass


def call_multiprocessing(path: str) -> Generator[Call]:
    with connections.Client(path, "AF_UNIX") as connection:

        def call() -> Any:
            connection.send(Add(2, 3))
            return connection.recv()

        yield call


# ---------------------------------------------------------------------------------------------
# ZeroMQ and nng


def serve_zmq(path: str) -> None:
    zmq: Any = import_module("zmq")
    answer = answering()
    with zmq.Context() as context, context.socket(zmq.REP) as sock:
        sock.bind(f"ipc://{path}")
        ready()
        while True:
            sock.send(answer(sock.recv()))


def call_zmq(path: str) -> Generator[Call]:
    zmq: Any = import_module("zmq")
    decode = make_decode()
    with zmq.Context.instance().socket(zmq.REQ) as sock:
        sock.connect(f"ipc://{path}")

        def call() -> Any:
            sock.send(request())
            return decode(sock.recv())[2]

        yield call


def serve_pynng(path: str) -> None:
    pynng: Any = import_module("pynng")
    answer = answering()
    with pynng.Rep0(listen=f"ipc://{path}") as sock:
        ready()
        while True:
            sock.send(answer(sock.recv()))


def call_pynng(path: str) -> Generator[Call]:
    pynng: Any = import_module("pynng")
    decode = make_decode()
    with pynng.Req0(dial=f"ipc://{path}", block_on_dial=True) as sock:

        def call() -> Any:
            sock.send(request())
            return decode(sock.recv())[2]

        yield call


# ---------------------------------------------------------------------------------------------
# asyncio


async def serve_streams(path: str) -> None:
    answer = answering()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
                data = answer(await reader.readexactly(length))
                writer.write(LENGTH.pack(len(data)) + data)
                await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(serve, path) as server:
        ready()
        await server.serve_forever()


async def call_streams(path: str) -> AsyncGenerator[Callable[[], Awaitable[object]]]:
    decode = make_decode()
    reader, writer = await asyncio.open_unix_connection(path)

    async def call() -> Any:
        data = request()
        writer.write(LENGTH.pack(len(data)) + data)
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        return decode(await reader.readexactly(length))[2]

    yield call
    writer.close()
    await writer.wait_closed()


def in_asyncio(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


def in_uvloop(coroutine: Any) -> Any:
    uvloop: Any = import_module("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)


# ---------------------------------------------------------------------------------------------
# Twisted AMP


def amp_command() -> Any:
    amp: Any = import_module("twisted.protocols.amp")
    members = {
        "arguments": [(b"a", amp.Integer()), (b"b", amp.Integer())],
        "response": [(b"total", amp.Integer())],
        "commandName": b"Add",
    }
    return type(amp.Command)("AmpAdd", (amp.Command,), members)


def serve_amp(path: str) -> None:
    amp: Any = import_module("twisted.protocols.amp")
    protocol: Any = import_module("twisted.internet.protocol")
    reactor: Any = import_module("twisted.internet.reactor")

    def add(a: int, b: int) -> dict[str, int]:
        return {"total": Add(a, b).process(None)}

    def build() -> Any:
        served = amp.AMP()
        responder = served._wrapWithSerialization(add, amp_class)
        served.locateResponder = lambda _: responder
        return served

    amp_class = amp_command()
    reactor.listenUNIX(path, protocol.Factory.forProtocol(build))
    reactor.callWhenRunning(ready)
    reactor.run(installSignalHandlers=False)


def in_twisted(coroutine: Any) -> Any:
    """Run in a reactor of its own: none can be started twice."""
    reactor = import_module("twisted.internet.epollreactor").EPollReactor()
    defer: Any = import_module("twisted.internet.defer")
    _reactors.append(reactor)
    ended: list[Any] = []

    def begin() -> None:
        deferred = defer.Deferred.fromCoroutine(coroutine)
        deferred.addBoth(ended.append).addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    reactor.run(installSignalHandlers=False)
    _reactors.remove(reactor)
    [result] = ended
    if hasattr(result, "raiseException"):
        result.raiseException()
    return result


_reactors: list[Any] = []


async def call_amp(path: str) -> AsyncGenerator[Callable[[], Awaitable[object]]]:
    amp: Any = import_module("twisted.protocols.amp")
    protocols: Any = import_module("twisted.internet.protocol")
    command = amp_command()
    protocol = await protocols.ClientCreator(_reactors[-1], amp.AMP).connectUNIX(path)

    def call() -> Any:
        return protocol.callRemote(command, a=2, b=3)

    yield call
    protocol.transport.loseConnection()


# ---------------------------------------------------------------------------------------------
# Remote objects


class Calculator:
    """What Pyro and rpyc publish."""

    def add(self, a: int, b: int) -> int:
        return Add(a, b).process(None)


def serve_pyro(path: str) -> None:
    server: Any = import_module("Pyro5.server")
    with server.Daemon(unixsocket=path) as daemon:
        daemon.register(server.expose(Calculator), "calc")
        ready()
        daemon.requestLoop()


def call_pyro(path: str) -> Generator[Call]:
    client: Any = import_module("Pyro5.client")
    with client.Proxy(f"PYRO:calc@./u:{path}") as proxy:
        yield lambda: proxy.add(2, 3)


def serve_rpyc(path: str) -> None:
    rpyc: Any = import_module("rpyc")
    server: Any = import_module("rpyc.utils.server")
    service = type("Service", (rpyc.Service,), {"exposed_add": Calculator.add})
    threaded = server.ThreadedServer(service, socket_path=path)
    ready()
    threaded.start()


def call_rpyc(path: str) -> Generator[Call]:
    factory: Any = import_module("rpyc.utils.factory")
    connection = factory.unix_connect(path)
    try:
        add = connection.root.add
        yield lambda: add(2, 3)
    finally:
        connection.close()


# ---------------------------------------------------------------------------------------------
# gRPC


def serve_grpc(path: str) -> None:
    grpc: Any = import_module("grpc")
    answer = answering()
    method = grpc.unary_unary_rpc_method_handler(lambda data, _: answer(data))
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("Calc", {"Add": method})])
    server.add_insecure_port(f"unix:{path}")
    server.start()
    ready()
    server.wait_for_termination()


def call_grpc(path: str) -> Generator[Call]:
    grpc: Any = import_module("grpc")
    decode = make_decode()
    with grpc.insecure_channel(f"unix:{path}") as channel:
        send = channel.unary_unary("/Calc/Add")
        yield lambda: decode(send(request()))[2]


# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Peer:
    """One library: what it needs, and its two ends."""

    shown: str
    package: str  # that brings it; empty: Python itself
    module: str
    serve: Callable[[str], object]
    call: Opened | None = None
    awaited: AsyncOpened | None = None
    run: Callable[[Any], Any] = in_asyncio

    @property
    def installed(self) -> bool:
        return find_spec(self.module) is not None


PEERS: Final = {
    "multiprocessing": Peer(
        "multiprocessing.connection",
        "",
        "multiprocessing",
        serve_multiprocessing,
        call_multiprocessing,
    ),
    "pyzmq": Peer("pyzmq REQ/REP, same codec", "pyzmq", "zmq", serve_zmq, call_zmq),
    "pynng": Peer("pynng REQ/REP, same codec", "pynng", "pynng", serve_pynng, call_pynng),
    "asyncio": Peer(
        "asyncio streams, same codec",
        "",
        "asyncio",
        lambda path: in_asyncio(serve_streams(path)),
        awaited=call_streams,
    ),
    "uvloop": Peer(
        "asyncio streams on uvloop, same codec",
        "uvloop",
        "uvloop",
        lambda path: in_uvloop(serve_streams(path)),
        awaited=call_streams,
        run=in_uvloop,
    ),
    "amp": Peer("Twisted AMP", "Twisted", "twisted", serve_amp, awaited=call_amp, run=in_twisted),
    "rpyc": Peer("rpyc", "rpyc", "rpyc", serve_rpyc, call_rpyc),
    "pyro": Peer("Pyro5", "Pyro5", "Pyro5", serve_pyro, call_pyro),
    "grpc": Peer("gRPC, same codec", "grpcio", "grpc", serve_grpc, call_grpc),
}


if __name__ == "__main__":
    end_with_parent()
    PEERS[sys.argv[1]].serve(sys.argv[2])
