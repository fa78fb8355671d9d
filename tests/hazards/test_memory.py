"""What all clients together may hold: row 32 of the table in docs/security.md."""

from __future__ import annotations

import gc
import os

import pytest
from harness import Host, Peer, answers, call, settle, wait_until

from ipcpoll._wire.framing import frame

KIB = 1024


def held(server) -> int:
    """What the server has counted, which must be what its connections hold."""
    clients = server._clients
    exact = sum(connection.held for connection in clients.connections.values())
    assert clients.held == exact == sum(c.accounted for c in clients.connections.values())
    return exact


def resident() -> int:
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def half_frame(size: int) -> bytes:
    """All but the last byte of a frame with a payload of this size."""
    return frame(b"\x5a" + (size - 5).to_bytes(4, "big") + bytes(size - 5))[:-1]


def send_all(server, peer: Peer, data: bytes) -> None:
    """Send while the server reads; ends early when the server has closed the connection."""
    sent = 0
    while sent < len(data):
        try:
            sent += peer.send_what_fits(data[sent:])
        except (BrokenPipeError, ConnectionResetError):
            return
        server.poll(Host())


def test_hazard_32_half_frames_of_many_clients(make_server, connect):
    """The connection that holds most makes room, not the one that comes last."""
    server = make_server(max_buffered=1000 * KIB, max_frame=256 * KIB)
    good = connect(server)
    small = [connect(server) for _ in range(3)]
    for peer in small:
        send_all(server, peer, half_frame(100 * KIB))
    largest = connect(server)
    send_all(server, largest, half_frame(250 * KIB))
    for _ in range(10):
        send_all(server, connect(server), half_frame(200 * KIB))
        good.call(1, "Echo", value=1)
        assert answers(server, good, 1) == [[1, 0, 1]]
        assert held(server) <= 1000 * KIB
    settle(server)
    [[call_id, kind, error]] = largest.received()
    assert (call_id, kind, error["code"]) == (None, 1, "busy")
    assert error["message"] == "the server has no room for what this client holds"
    assert largest.ended
    for peer in small:
        assert peer.received() == []
        assert not peer.ended
    # 10 of 200 KiB came, 3 of them fit beside the three small ones.
    assert server.stats()["evicted"] == 1 + 7


def test_hazard_32_answers_that_nobody_reads(make_server, connect, caplog):
    server = make_server(max_buffered=1000 * KIB)
    good = connect(server)
    greedy = []
    for _ in range(6):
        greedy.append(connect(server))
        greedy[-1].call(1, "Blob", size=450 * KIB)
        settle(server)
        good.call(2, "Echo", value=2)
        assert answers(server, good, 1) == [[2, 0, 2]]
        assert held(server) <= 1000 * KIB
    assert 2 <= server.stats()["evicted"] <= 5
    assert "the one that held most" in caplog.text
    # Those that were kept are answered in full as soon as they read.
    kept = greedy[-1]
    assert answers(server, kept, 1) == [[1, 0, bytes(450 * KIB)]]


def test_hazard_32_requests_that_wait(make_server, connect):
    """Whole frames that wait for their turn count as well."""
    server = make_server(max_buffered=300 * KIB)
    first, second = connect(server), connect(server)
    for peer in (first, second):
        for _ in range(3):
            peer.send_what_fits(call(1, "Take", data=bytes(60 * KIB)))
            server.poll(Host(), max_commands=0)
    server.poll(Host(), max_commands=0)
    assert server.stats()["evicted"] == 1
    assert held(server) <= 300 * KIB
    settle(server)
    assert held(server) == 0


def test_hazard_32_256_clients_of_256_kib_each(make_server, connect):
    """The default limits, all of them used: 64 MiB and no more."""
    server = make_server()
    before = resident()
    data = half_frame(256 * KIB)
    peers = [connect(server) for _ in range(256)]
    for peer in peers:
        send_all(server, peer, data)
    settle(server)
    assert held(server) <= 64 * KIB * KIB
    assert resident() - before < 100 * KIB * KIB
    for peer in peers:
        peer.close()
    settle(server)
    assert held(server) == 0


def test_connection_whose_command_runs_is_not_evicted(make_server, connect):
    """It holds most, but its answer is being made; it makes room when it has returned."""
    server = make_server(max_buffered=200 * KIB)
    peer, other = connect(server), connect(server)
    host = Host(server=server)
    evicted = []

    def nested():
        send_all(server, other, half_frame(150 * KIB))
        evicted.append(server.stats()["evicted"])

    host.do = nested
    for _ in range(3):
        peer.send(call(1, "Do"))
        peer.send_what_fits(call(2, "Take", data=bytes(60 * KIB)))
    for _ in range(4):  # reads begin small
        server.poll(host, max_commands=0)
    server.poll(host, max_commands=1)
    assert evicted == [1], "the other one made room"
    assert not peer.ended
    wait_until(lambda: server.poll(Host()) == 0)
    assert next(iter(peer.received()))[0] == 1


@pytest.mark.parametrize("commands", [0, None])
def test_one_that_makes_room_may_be_next_in_the_row(make_server, connect, commands):
    """Both are ready in the same poll; the first to be read closes the other."""
    server = make_server(max_buffered=300 * KIB)
    peers = [connect(server) for _ in range(4)]
    data = half_frame(200 * KIB)
    for peer in peers:
        send_all(server, peer, data[: 60 * KIB])
    for peer in peers:
        peer.send(data[60 * KIB : 110 * KIB])
    server.poll(Host(), max_commands=commands)
    settle(server)
    assert held(server) <= 300 * KIB
    assert server.stats()["evicted"] >= 1


def test_hazard_32_large_answers_of_which_little_is_left(make_server, connect):
    """What was sent is freed, and not kept for the sake of its last bytes."""
    server = make_server()
    peers = [connect(server) for _ in range(12)]
    before = resident()
    for peer in peers:
        peer.call(1, "Blob", size=15 * KIB * KIB)
        left = 15 * KIB * KIB - 300 * KIB
        while left > 0:
            server.poll(Host())
            left -= len(peer.socket.recv(min(left, 1 << 20)))
    settle(server)
    assert server.stats()["evicted"] == 0
    assert resident() - before < 32 * KIB * KIB


def test_answers_of_many_that_make_room_as_they_are_sent(make_server, connect):
    server = make_server(max_buffered=200 * KIB)
    peers = [connect(server) for _ in range(4)]
    for peer in peers:
        peer.send(call(1, "Blob", size=400 * KIB))
    server.poll(Host())
    settle(server)
    assert held(server) <= 200 * KIB


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, MemoryError])
def test_count_is_right_after_an_interruption(make_server, connect, monkeypatch, interrupt):
    server = make_server()
    peers = [connect(server) for _ in range(3)]
    for peer in peers:
        send_all(server, peer, half_frame(100 * KIB))
    assert held(server) > 290 * KIB
    turns = server._round._turns
    rest = turns.rest

    def interrupted(connection):
        monkeypatch.undo()
        server._clients.held += 1000  # it had begun to count
        raise interrupt

    monkeypatch.setattr(turns, "rest", interrupted)
    peers[0].send(b"\0")
    try:
        server.poll(Host())
    except KeyboardInterrupt:
        pass
    assert turns.rest == rest
    assert held(server) < 210 * KIB
