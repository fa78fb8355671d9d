"""The hazards of descriptors and events, one test or more for each.

The numbers are those of the table in docs/security.md, rows 47 to 54. What another module tests
already carries its number there.
"""

from __future__ import annotations

import errno
import select
import socket
import subprocess
import sys
from contextlib import ExitStack

import pytest
from harness import Host, answers, call, finish, readable, run_python, serve_until, settle

NEVER_A_FRAME = b"GET / HTTP/1.1\r\n\r\n"


def the_connection(server):
    """Return the server's end of its only client."""
    [connection] = server._clients.connections.values()
    return connection


# ---------------------------------------------------------------------------------------------
# 47: an event or a place in the row outlives its connection, and the number is used again


@pytest.mark.parametrize("nested", [1, 2])
def test_hazard_47_number_that_is_used_again_in_a_nested_poll(server, connect, nested):
    """B has calls in the outer poll's row when it goes; C gets its number, and only C's calls."""
    first, gone = connect(server), connect(server)
    server.poll(Host())
    number = max(server._clients.connections)
    old = server._clients.connections[number]
    gone.send(*(call(i, "Echo", value=100 + i) for i in range(5)))
    first.send(call(1, "Do", value=1), call(2, "Do", value=2))
    host = Host()
    late = []

    def swap():
        if nested == 2 and host.log.count(("do", 1)) < 2:
            host.do = swap
            deeper = connect(server)
            deeper.call(1, "Do", value=1)
            server.poll(host)
            return
        if not late:
            gone.close()
            server.poll(host)  # it is seen to have gone
            late.append(connect(server))
            late[0].send(call(7, "Echo", value=7), call(8, "Echo", value=8))
            server.poll(host)

    host.do = swap
    serve_until(server, lambda: ("do", 2) in host.log, host)
    settle(server, host)
    new = server._clients.connections[number]
    assert new is not old, "the number was used again, or this test shows nothing"
    assert old.closed
    assert late[0].received() == [[7, 0, 7], [8, 0, 8]]
    assert [entry for entry in host.log if entry in (7, 8)] == [7, 8]
    assert first.received() == [[1, 0, 1], [2, 0, 2]]


def test_hazard_47_number_that_is_used_again_between_two_polls(server, connect):
    """An event that was taken before the change, for the number, must not be acted upon."""
    gone = connect(server)
    server.poll(Host())
    gone.call(1, "Echo", value=1)
    host = Host()
    serial = server._round.serial
    stale = server._hub.poller.poll()
    gone.close()
    settle(server, host)
    late = connect(server)
    server.poll(host)
    assert the_connection(server).fd == stale[0][0]
    server._round.run(stale, host, None, None, serial)
    settle(server, host)
    assert server.stats()["clients"] == 1
    late.call(2, "Echo", value=2)
    assert answers(server, late, 1, host) == [[2, 0, 2]]


# ---------------------------------------------------------------------------------------------
# 48: closed without being unregistered, while another process holds a copy


def test_hazard_48_copy_in_another_process_sends_no_events(server, connect):
    """The kernel reports a socket until its last copy is closed, unless it was unregistered."""
    kept, peer = connect(server), connect(server)
    server.poll(Host())
    number = max(server._clients.connections)
    holder = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[number]
    )
    try:
        peer.send(NEVER_A_FRAME)
        settle(server)
        assert server.stats()["clients"] == 1
        peer.send(call(1, "Echo", value=1))  # it still has a reader, as far as it can see
        assert not readable(server), "an event of a connection that was closed"
        kept.call(2, "Echo", value=2)
        assert answers(server, kept, 1) == [[2, 0, 2]]
        peer.close()
        assert not readable(server), "the hang-up of a connection that was closed"
    finally:
        holder.communicate(b"\n", timeout=60)


# ---------------------------------------------------------------------------------------------
# 49: a hang-up is reported even of what is not watched


@pytest.mark.parametrize("pending", [0, 1])
def test_hazard_49_muted_client_process_that_exits_wakes_twice_at_most(server, pending):
    """It does not read its answers, so it is not read; then its process ends."""
    client = run_python(
        "import sys\nfrom harness import Peer, call\npeer = Peer(sys.argv[1])\n"
        "peer.send(*(call(i, 'Blob', size=1_000_000) for i in range(3)))\n"
        "input()\npeer.send(*[call(9, 'Echo', value=9)] * int(sys.argv[2]))\n"
        "print('sent', flush=True)\ninput()",
        server.address,
        str(pending),
        stdin=subprocess.PIPE,
    )
    try:
        serve_until(server, lambda: server.stats()["turns"] == 1)
        settle(server)
        client.stdin.write("\n")
        client.stdin.flush()
        assert client.stdout.readline() == "sent\n"
        settle(server)  # what came after is muted
        assert server.stats()["clients"] == 1
        finish(client, "\n")
        host = Host()
        wake_ups = 0
        while readable(server):
            server.poll(host)
            wake_ups += 1
        assert 1 <= wake_ups <= 2
        assert host.log == []
        assert server.stats()["clients"] == 0
    finally:
        client.kill()


# ---------------------------------------------------------------------------------------------
# 50: the end of what a client sends stays readable, and its answers must still go out


def test_hazard_50_half_closed_client_that_reads_late(server, connect):
    """It has shut down and its answers wait for room: no spin, and it gets all of them."""
    peer = connect(server)
    peer.send(*(call(i, "Blob", size=400_000) for i in range(5)))
    peer.socket.shutdown(socket.SHUT_WR)
    settle(server)
    assert server.stats()["clients"] == 1
    got = []
    polls = serve_until(server, lambda: got.extend(peer.received(50_000)) or peer.ended)
    assert [(answer[0], len(answer[2])) for answer in got] == [(i, 400_000) for i in range(5)]
    assert polls < 200
    assert server.stats()["clients"] == 0


# ---------------------------------------------------------------------------------------------
# 53: an epoll set in an epoll set in an epoll set


def chain(fd, stack):
    """Nest epoll sets around `fd` until the kernel refuses; return them from the inside out."""
    sets = []
    while True:
        epoll = stack.enter_context(select.epoll())
        try:
            epoll.register(sets[-1] if sets else fd, select.EPOLLIN)
        except OSError as error:
            if error.errno == errno.ELOOP:
                return sets
            raise
        sets.append(epoll)


def test_hazard_53_server_is_one_level_of_nesting_and_no_more(server, peer):
    """Around it fits as much as around any epoll set, and each of these sees what is ready."""
    with ExitStack() as stack:
        plain = stack.enter_context(select.epoll())
        # A socket in it: what counts is how deep the sets themselves are nested.
        plain.register(peer.socket, 0)
        possible = len(chain(plain.fileno(), stack))
        sets = chain(server.fileno(), stack)
        assert len(sets) == possible >= 2
        server.poll(Host())
        for epoll in reversed(sets):
            assert epoll.poll(0) == []
        for i in range(3):
            peer.call(i, "Echo", value=i)
            for epoll in reversed(sets):
                assert len(epoll.poll(20)) == 1, "seen at every level"
            server.poll(Host())
            assert peer.received() == [[i, 0, i]]
            for epoll in reversed(sets):
                assert epoll.poll(0) == []


# ---------------------------------------------------------------------------------------------
# 54: only few small messages fit into a socket


def test_hazard_54_smallest_send_buffer_and_a_client_that_reads_byte_by_byte(server, peer):
    peer.send(*(call(i, "Echo", value=i) for i in range(200)), call(900, "Blob", size=3000))
    server.poll(Host(), max_commands=0)
    connection = the_connection(server)
    connection._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2304)
    host = Host()
    got = []
    silent = 0
    while len(got) < 201:
        if readable(server):
            server.poll(host)
            silent = 0
        else:
            got.extend(peer.received(1))
            silent += 1
        assert silent < 5000, "the answers stopped"
    assert got == [[i, 0, i] for i in range(200)] + [[900, 0, bytes(3000)]]
    assert host.log == [*range(200), 3000], "each was run once"


def test_hazard_54_many_small_answers_leave_joined(server, peer):
    """Sent one by one, fewer than 300 would fit into the socket of a client that reads late."""
    host = Host()
    for start in range(0, 2000, 100):
        peer.send(*(call(i, "Echo", value=i) for i in range(start, start + 100)))
        settle(server, host)
    assert len(host.log) == 2000, "nobody was muted, though nothing was read"
    assert the_connection(server).unsent == 0
    assert [answer[0] for answer in peer.received()] == list(range(2000))
