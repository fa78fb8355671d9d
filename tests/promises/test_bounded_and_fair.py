"""Promise 4: `poll` is bounded and fair: a turn is one frame, and the queue survives the poll."""

from __future__ import annotations

import math
import socket
import types

import pytest
from harness import (
    PATIENCE,
    Host,
    answers,
    call,
    encode,
    finish,
    readable,
    run_python,
    serve_process,
    serve_until,
    settle,
)


class Clock:
    """Time that passes only when a test lets it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """The clock of servers that are made after this."""
    clock = Clock()
    monkeypatch.setattr("ipcpoll._server.server.time", types.SimpleNamespace(monotonic=clock))
    return clock


def test_hazard_28_flooder_delays_each_quiet_client_by_at_most_one_command(server, connect):
    """1,500 frames wait; nine quiet clients; one command a poll: all answered in 12 polls."""
    flooder = connect(server)
    flood = b"".join(call(i, "Echo", value=0) for i in range(1500))
    assert flooder.send_what_fits(flood) == len(flood)
    server.poll(Host(), max_commands=1)
    quiet = [connect(server) for _ in range(9)]
    for round_ in range(20):
        for i, peer in enumerate(quiet):
            peer.call(round_, "Echo", value=i)
        for _ in range(12):
            assert server.poll(Host(), max_commands=1) == 1
        for i, peer in enumerate(quiet):
            assert peer.received() == [[round_, 0, i]]
    flooder.close()


def test_turns_go_round_robin_across_polls(server, connect):
    peers = [connect(server) for _ in range(3)]
    for i, peer in enumerate(peers):
        peer.send(*(call(k, "Echo", value=10 * i + k) for k in range(4)))
    host = Host()
    for _ in range(12):
        assert server.poll(host, max_commands=1) == 1
    assert host.log == [0, 10, 20, 1, 11, 21, 2, 12, 22, 3, 13, 23]


@pytest.mark.parametrize("most", [1, 2, 5, 7, 100])
def test_max_commands_bounds_the_turns(server, peer, most):
    peer.send(*(call(i, "Echo", value=i) for i in range(12)))
    host = Host()
    turns = []
    while turn := server.poll(host, max_commands=most):
        turns.append(turn)
    assert sum(turns) == 12
    assert max(turns) == min(most, 12)
    assert host.log == list(range(12))


def test_max_commands_zero_takes_in_and_runs_nothing(server, connect):
    peers = [connect(server) for _ in range(3)]
    for peer in peers:
        peer.call(1, "Echo", value=1)
    host = Host()
    assert server.poll(host, max_commands=0) == 0
    assert server.stats()["clients"] == 3
    assert host.log == []
    assert readable(server)
    assert server.pending
    assert server.poll(host) == 3


def test_max_commands_zero_with_half_a_frame_leaves_nothing(server, peer):
    peer.send(call(1, "Echo", value=1)[:-1])
    assert server.poll(Host(), max_commands=0) == 0
    assert not readable(server)
    assert not server.pending


def test_max_seconds_zero_is_one_turn(server, connect):
    """Taking in new connections and reading half frames are no turns."""
    half, peer = connect(server), connect(server)
    half.send(call(1, "Echo", value=1)[:-1])
    peer.send(call(1, "Echo", value=1), call(2, "Echo", value=2))
    assert server.poll(Host(), max_seconds=0) == 1
    assert server.poll(Host(), max_seconds=0) == 1
    assert server.poll(Host(), max_seconds=0) == 0


def test_max_seconds_is_looked_at_after_each_turn(clock, make_server, connect):
    server = make_server()
    peer = connect(server)
    peer.send(*(call(i, "Do") for i in range(10)))

    def work():
        clock.now += 0.010

    host = Host(do=work)
    assert server.poll(host, max_seconds=0.025) == 3
    assert server.poll(host, max_seconds=0.010) == 1
    assert server.poll(host, max_seconds=0) == 1
    assert server.poll(host) == 1, "the default is 5 ms"
    assert server.poll(host, max_seconds=math.inf) == 4


def test_default_budget_is_a_limit(clock, make_server, connect):
    server = make_server(poll_seconds=0.040)
    peer = connect(server)
    peer.send(*(call(i, "Do") for i in range(10)))

    def work():
        clock.now += 0.010

    assert server.poll(Host(do=work)) == 4
    settle(server, Host(do=work))


def test_both_budgets_together(clock, make_server, connect):
    server = make_server()
    peer = connect(server)
    peer.send(*(call(i, "Do") for i in range(10)))

    def work():
        clock.now += 0.010

    assert server.poll(Host(do=work), max_commands=2, max_seconds=0.045) == 2
    assert server.poll(Host(do=work), max_commands=6, max_seconds=0.025) == 3
    settle(server, Host(do=work))


def test_looking_for_the_first_turn_is_bounded_too(clock, make_server, connect):
    """Many half frames and a host that wants one turn: the search ends after 5 ms."""
    server = make_server()
    peers = [connect(server) for _ in range(20)]
    server.poll(Host())
    for peer in peers:
        peer.send(call(1, "Echo", value=1)[:-1])
    reads = []
    for connection in server._clients.connections.values():
        _slow_down(connection, clock, reads)
    assert server.poll(Host(), max_seconds=0) == 0
    assert len(reads) == 5
    assert readable(server)
    settle(server)
    assert len(reads) == 20


def _slow_down(connection, clock, reads):
    """Let a millisecond pass with each byte string that a connection is given."""
    receive = connection.protocol.receive

    def slow(data, now):
        clock.now += 0.00101
        reads.append(data)
        receive(data, now)

    connection.protocol.receive = slow


def test_new_connection_is_answered_in_the_same_poll(server, connect):
    """A one-shot client of a program that polls once a second waits for one poll, not two."""
    for i in range(5):
        peer = connect(server)
        peer.call(i, "Echo", value=i)
        assert server.poll(Host()) == 1
        assert peer.received() == [[i, 0, i]]
        peer.close()


def test_one_shot_process_is_answered_by_the_first_poll_after_it_sent(server):
    """A real process; the program polls only once, when connection and call have come."""
    client = run_python(
        "import sys\nfrom harness import Echo\nfrom ipcpoll import send\n"
        "print(send(Echo(42), sys.argv[1], timeout=60))",
        server.address,
    )
    try:
        watched = server._listener.fileno()
        assert readable(watched, 30), "it has connected"
        accepted = _unread_bytes_of_first(server)
        assert accepted
        assert server.poll(Host()) == 1
        assert finish(client).strip() == "42"
    finally:
        client.kill()
    settle(server)


def _unread_bytes_of_first(server):
    """Wait until the connection in the backlog has bytes, without accepting it for good.

    It is accepted by hand and given to the server the way the acceptor gives it.
    """
    sock, _ = server._listener._socket.accept()
    sock.setblocking(False)
    assert readable(sock, 30)
    size = len(sock.recv(65536, socket.MSG_PEEK))
    acceptor = server._round._acceptor
    accept = acceptor.accept

    def once(deadline, most):
        acceptor.accept = accept
        yield sock, True
        yield from accept(deadline, most)

    acceptor.accept = once
    acceptor.more = True
    server.wake()
    return size


def test_who_calls_while_another_floods_is_served_in_the_same_poll(server, connect):
    """The poller is asked again and again: nobody waits for all that others have sent before."""
    flood, other = connect(server), connect(server)
    server.poll(Host())
    host = Host(do=lambda: other.call(1, "Echo", value=-1))
    flood.send(call(0, "Do"), *(call(i, "Echo", value=i) for i in range(1, 1000)))
    server.poll(host, max_seconds=PATIENCE)
    assert len(host.log) == 1001, "the flood and the other"
    assert host.log.index(-1) < 500


@pytest.mark.once
def test_twenty_thousand_one_shot_commands_none_lost_none_run_twice(server):
    """Against a server that polls in a tight loop; the crate that this follows loses most."""
    clients = [
        run_python(
            "import sys\nfrom harness import Echo\nfrom ipcpoll import send\n"
            "first = int(sys.argv[2])\n"
            "for value in range(first, first + 10_000):\n"
            "    assert send(Echo(value), sys.argv[1], timeout=60) == value",
            server.address,
            str(first),
        )
        for first in (0, 10_000)
    ]
    host = Host()
    try:
        while any(client.poll() is None for client in clients):
            for _ in range(2000):
                server.poll(host)
        for client in clients:
            finish(client)
    finally:
        for client in clients:
            client.kill()
    assert sorted(host.log) == list(range(20_000))


def test_answers_are_joined(server, peer):
    """Sixteen at a time and the rest at the end of the poll, not one send each."""
    sends = []
    server.poll(Host())
    [connection] = server._clients.connections.values()
    connection._socket = _Counting(connection._socket, sends)
    peer.send(*(call(i, "Echo", value=1) for i in range(40)))
    assert server.poll(Host(), max_seconds=math.inf) == 40
    assert len(peer.received()) == 40
    assert len(sends) == 3


class _Counting:
    """A socket whose sends are counted."""

    def __init__(self, sock, sends):
        self.sock = sock
        self.sends = sends

    def send(self, data, flags):
        self.sends.append(len(data))
        return self.sock.send(data, flags)

    def __getattr__(self, name):
        return getattr(self.sock, name)


def test_frames_wait_in_the_socket_when_sixteen_are_taken_apart(make_server, connect):
    server = make_server(max_frames_waiting=16, read_size=1024)
    peer = connect(server)
    peer.send(*(call(i, "Echo", value=i) for i in range(1000)))
    host = Host()
    most = 0
    while server.poll(host, max_commands=1):
        [connection] = server._clients.connections.values()
        most = max(most, len(connection.protocol.waiting))
        assert connection.protocol.bytes_waiting < 2048
    assert most == 16
    assert host.log == list(range(1000))


def test_call_whose_caller_has_gone_is_not_run_and_a_notification_is(server, connect):
    peer = connect(server)
    peer.send(call(1, "Echo", value=1), call(None, "Echo", value=2), call(3, "Echo", value=3))
    peer.close()
    host = Host()
    settle(server, host)
    assert host.log == [2]
    assert server.stats()["dropped"] == 2


def test_many_notifications_of_a_client_that_has_gone_are_all_run(make_server, connect):
    """More than one read brings; no poller tells of them any more."""
    server = make_server(read_size=64)
    peer = connect(server)
    peer.send(*(call(None, "Echo", value=i) for i in range(50)))
    peer.close()
    host = Host()
    settle(server, host)
    assert host.log == list(range(50))


def test_caller_that_goes_between_the_poller_s_word_and_its_turn(make_server, connect):
    """The end of file is read in the same poll; its waiting calls are not run."""
    frames = b"".join(call(i, "Echo", value=i) for i in range(3))
    server = make_server(read_size=len(frames))
    first, second = connect(server), connect(server)
    second.send(frames)  # one read fills the buffer, so there may be more to read
    first.call(1, "Do", value=1)
    server.poll(Host(), max_commands=0)
    host = Host(do=second.close)
    assert server.poll(host) == 4
    assert host.log == [("do", 1)]
    assert server.stats()["dropped"] == 3


def test_calls_that_wait_are_not_run_when_their_caller_goes(server, peer):
    peer.send(*(call(i, "Echo", value=i) for i in range(20)))
    host = Host()
    server.poll(host, max_commands=3)
    peer.close()
    settle(server, host)
    assert host.log == [0, 1, 2]
    assert server.stats()["dropped"] == 17


def test_hazard_50_half_closed_client_is_answered_in_full(server, peer):
    peer.send(*(call(i, "Echo", value=i) for i in range(100)))
    peer.socket.shutdown(socket.SHUT_WR)
    assert answers(server, peer, 100) == [[i, 0, i] for i in range(100)]
    settle(server)
    assert server.stats()["clients"] == 0


def test_cancel_that_waits_behind_its_call(server, peer):
    peer.send(call(1, "Echo", value=1), call(2, "Echo", value=2), b"\xd8\x18\x42\x81\x02")
    host = Host()
    first, second = answers(server, peer, 2, host)
    assert first == [1, 0, 1]
    assert second[:2] == [2, 1]
    assert second[2]["code"] == "cancelled"
    assert host.log == [1]


def test_cancel_of_a_call_that_was_answered_is_ignored(server, peer):
    peer.call(1, "Echo", value=1)
    assert answers(server, peer, 1) == [[1, 0, 1]]
    peer.send(b"\xd8\x18\x42\x81\x01", call(1, "Echo", value=2))
    assert answers(server, peer, 1) == [[1, 0, 2]]


def test_time_limit_that_passed_before_the_turn(clock, make_server, connect):
    server = make_server()
    peer = connect(server)
    peer.send(
        encode([1, "Echo", {"value": 1}, {"timeout": 0.5}]),
        encode([2, "Echo", {"value": 2}, {"timeout": 2}]),
    )
    server.poll(Host(), max_commands=0)
    clock.now += 1
    first, second = answers(server, peer, 2)
    assert first[2] == {
        "code": "cancelled",
        "message": "the call's time limit of 0.5 s passed before its turn",
    }
    assert second == [2, 0, 2]


def test_time_limit_counts_from_the_call_s_own_arrival(clock, make_server, connect):
    """Other frames keep coming on the connection; that makes the waiting call no younger."""
    server = make_server()
    peer = connect(server)
    peer.call(1, "Echo", value=1)
    peer.send(encode([2, "Echo", {"value": 2}, {"timeout": 1}]))
    host = Host()
    for later in range(3, 6):
        server.poll(host, max_commands=0)
        clock.now += 0.4
        peer.call(later, "Echo", value=later)
    got = answers(server, peer, 5, host)
    assert got[1][2]["code"] == "cancelled"
    assert host.log == [1, 3, 4, 5]


def test_hazard_24_server_that_is_full_says_so(make_server, connect):
    server = make_server(max_clients=2)
    good = [connect(server) for _ in range(2)]
    for i, peer in enumerate(good):
        peer.call(i, "Echo", value=i)
        answers(server, peer, 1)
    refused = connect(server)
    refused.call(1, "Echo", value=1)
    [error] = answers(server, refused, 1)
    assert error[:2] == [None, 1]
    assert error[2]["code"] == "busy"
    settle(server)
    assert server.stats()["refused"] == 1
    good[0].close()
    settle(server)
    late = connect(server)
    late.call(5, "Echo", value=5)
    assert answers(server, late, 1) == [[5, 0, 5]]


def test_hazard_24_client_whose_call_waits_makes_no_room(make_server, connect):
    server = make_server(max_clients=2)
    peers = [connect(server) for _ in range(2)]
    for i, peer in enumerate(peers):
        peer.call(i, "Echo", value=i)
    server.poll(Host(), max_commands=0)
    late = connect(server)
    late.call(9, "Echo", value=9)
    for i, peer in enumerate(peers):
        assert answers(server, peer, 1) == [[i, 0, i]]
    assert late.received()[0][2]["code"] == "busy"
    assert late.socket.recv(1) == b"", "the end, and no reset"


def test_client_that_came_in_the_same_poll_with_a_call_is_not_silent(make_server, connect):
    server = make_server(max_clients=1)
    first, second = connect(server), connect(server)
    first.call(1, "Echo", value=1)
    second.call(2, "Echo", value=2)
    assert answers(server, first, 1) == [[1, 0, 1]]
    assert answers(server, second, 1)[0][2]["code"] == "busy"
    assert server.stats()["evicted"] == 0


def test_hazard_25_silent_clients_make_room_oldest_first(make_server, connect):
    server = make_server(max_clients=3)
    spoke, silent, younger = (connect(server) for _ in range(3))
    spoke.call(1, "Echo", value=1)
    answers(server, spoke, 1)
    settle(server)
    good = connect(server)
    good.call(2, "Echo", value=2)
    assert answers(server, good, 1) == [[2, 0, 2]]
    assert silent.received()[0][2]["code"] == "busy"
    assert silent.ended
    assert younger.received() == []
    assert not younger.ended
    assert server.stats()["evicted"] == 1


def test_hazard_28_real_flooding_processes_and_a_polite_one(server):
    """Two processes pipeline without end; the polite one makes its calls beside them."""
    floods = [
        run_python(
            "import sys, itertools\nfrom harness import Echo\nfrom ipcpoll import Client\n"
            "with Client(sys.argv[1], timeout=60) as client:\n"
            "    for _ in client.map((Echo(0) for _ in itertools.count()), depth=256): pass",
            server.address,
        )
        for _ in range(2)
    ]
    host = Host()
    try:
        serve_until(server, lambda: len(host.log) > 2000, host)
        polite = run_python(
            "import sys\nfrom harness import Echo\nfrom ipcpoll import Client\n"
            "with Client(sys.argv[1], timeout=60) as client:\n"
            "    print([client.call(Echo(i)) for i in range(50)])",
            server.address,
        )
        assert serve_process(server, polite, host).strip() == str(list(range(50)))
    finally:
        for flood in floods:
            flood.kill()
            flood.communicate()
    settle(server, host)
