"""Promise 2: `poll` never blocks: not on a silent client, half a frame, one that does not read.

What would block is waited for by the test in vain: each scenario polls in this thread, and a poll
that blocked would hang the test (the watchdog ends it with a traceback).
"""

from __future__ import annotations

import faulthandler
import os
import signal
import time

import pytest
from harness import (
    PATIENCE,
    Host,
    Peer,
    answers,
    call,
    readable,
    run_python,
    serve_until,
    settle,
    wait_until,
)


@pytest.fixture(autouse=True)
def _watchdog():
    faulthandler.dump_traceback_later(3 * PATIENCE, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def cpu_and_wall(server, host, **budget):
    """Poll once; return the CPU seconds of this thread, and assert that it did not sleep."""
    cpu, wall = time.thread_time(), time.monotonic()
    server.poll(host, **budget)
    # Blocking would be wall time without CPU time; a busy machine takes a slice now and then.
    cpu, wall = time.thread_time() - cpu, time.monotonic() - wall
    assert wall - cpu < 1.0
    return cpu


def test_silent_clients_and_a_good_one(server, connect):
    for _ in range(100):
        connect(server)
    good = connect(server)
    good.call(1, "Echo", value=7)
    assert answers(server, good, 1) == [[1, 0, 7]]
    settle(server)


@pytest.mark.parametrize("size", range(1, len(call(1, "Echo", value=7))))
def test_hazard_31_half_a_frame_of_every_length(server, connect, size):
    half, good = connect(server), connect(server)
    whole = call(1, "Echo", value=7)
    half.send(whole[:size])
    good.call(2, "Echo", value=8)
    assert answers(server, good, 1) == [[2, 0, 8]]
    assert not readable(server)
    half.send(whole[size:])
    assert answers(server, half, 1) == [[1, 0, 7]]


def test_client_that_sends_byte_by_byte_beside_one_that_makes_calls(server, connect):
    slow, good = connect(server), connect(server)
    host = Host()
    for sent, byte in enumerate(call(1, "Echo", value=7)):
        slow.send(bytes([byte]))
        good.call(sent, "Echo", value=sent)
        assert answers(server, good, 1, host) == [[sent, 0, sent]]
    assert answers(server, slow, 1, host) == [[1, 0, 7]]


def test_hazard_30_client_that_never_reads(server, connect):
    deaf, good = connect(server), connect(server)
    host = Host()
    deaf.send(*(call(i, "Blob", size=250_000) for i in range(12)))
    for i in range(50):
        cpu_and_wall(server, host)
        good.call(i, "Echo", value=i)
        assert answers(server, good, 1, host) == [[i, 0, i]]
    assert len([size for size in host.log if size == 250_000]) <= 3, "its calls wait for room"
    assert not readable(server)


def test_hazard_29_client_that_only_writes_is_stopped_and_memory_stays_flat(server, connect):
    writer = connect(server)
    flood = b"".join(call(i, "Blob", size=50_000) for i in range(500))
    host = Host()
    sent = 0
    for _ in range(200):
        sent += writer.send_what_fits(flood[sent % len(flood) :])
        server.poll(host)
    [connection] = server._clients.connections.values()
    assert connection.unsent < 256 * 1024 + 60_000
    assert connection.protocol.bytes_waiting < 2 * 64 * 1024 + 16 * 60
    assert not readable(server)
    writer.close()
    settle(server)


def test_hazard_26_accept_storm(server, connect):
    """More clients than one poll takes in: each poll stays bounded, all are served."""
    peers = [connect(server) for _ in range(200)]
    for i, peer in enumerate(peers):
        peer.call(i, "Echo", value=i)
    host = Host()
    server.poll(host)
    assert server.stats()["accepted"] <= 64
    serve_until(server, lambda: len(host.log) == 200, host)
    for i, peer in enumerate(peers):
        assert answers(server, peer, 1, host) == [[i, 0, i]]


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
def test_stopped_and_killed_client_processes(server, connect, how):
    """A real process stops in the middle of reading a large answer."""
    client = run_python(
        "import sys\nfrom harness import Blob\nfrom ipcpoll import Client\n"
        "with Client(sys.argv[1], timeout=60) as client:\n"
        "    while True: client.call(Blob(1_000_000))",
        server.address,
    )
    host = Host()
    try:
        serve_until(server, lambda: len(host.log) >= 3, host)
        os.kill(client.pid, how)
        good = connect(server)
        for i in range(20):
            cpu_and_wall(server, host)
            good.call(i, "Echo", value=i)
            assert answers(server, good, 1, host) == [[i, 0, i]]
        serve_until(server, lambda: not readable(server), host)
        if how == signal.SIGSTOP:
            os.kill(client.pid, signal.SIGCONT)
            done = len(host.log)
            serve_until(server, lambda: len(host.log) > done, host)
    finally:
        client.kill()
        client.communicate()
    wait_until(lambda: server.poll(host) or server.stats()["clients"] == 1)


def test_large_answer_leaves_in_pieces_as_it_is_read(server, peer):
    peer.call(1, "Blob", size=3_000_000)
    host = Host()
    server.poll(host)
    [connection] = server._clients.connections.values()
    assert connection.unsent > 2_000_000
    got = []
    serve_until(server, lambda: got.extend(peer.received(65536)) or got, host)
    assert got == [[1, 0, bytes(3_000_000)]]
    assert connection.unsent == 0


def test_large_request_arrives_in_pieces(server, connect):
    peer, good = connect(server), connect(server)
    frame = call(1, "Take", data=bytes(250_000))
    host = Host()
    sent = 0
    while sent < len(frame):
        sent += peer.send_what_fits(frame[sent : sent + 30_000])
        server.poll(host)
        good.call(2, "Echo", value=2)
        assert answers(server, good, 1, host) == [[2, 0, 2]]
    assert answers(server, peer, 1, host) == [[1, 0, 250_000]]


def test_sockets_are_non_blocking_whatever_the_default_timeout_is(directory, make_server):
    import socket

    socket.setdefaulttimeout(60)
    try:
        server = make_server()
        with Peer(server) as peer:
            server.poll(Host())
            peer.call(1, "Echo", value=1)
            assert answers(server, peer, 1) == [[1, 0, 1]]
            assert server._listener._socket.gettimeout() == 0
            [connection] = server._clients.connections.values()
            assert connection._socket.gettimeout() == 0
    finally:
        socket.setdefaulttimeout(None)
