"""Promise 1: one descriptor, readable if and only if `poll` has something to do."""

from __future__ import annotations

import errno
import fcntl
import math
import os
import select
import selectors
import socket
import subprocess
import sys
import threading
import time

import pytest
from harness import (
    COMMANDS,
    Echo,
    Host,
    Peer,
    answers,
    call,
    readable,
    run_python,
    serve_process,
    serve_until,
    settle,
)

from ipcpoll import Client, Limits, Server
from ipcpoll._system.poller import MOST_EVENTS, READ, SelectorPoller


def test_descriptor_is_an_epoll_set_and_closed_on_exec(server):
    link = os.readlink(f"/proc/self/fd/{server.fileno()}")
    assert link == "anon_inode:[eventpoll]"
    assert fcntl.fcntl(server.fileno(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_hazard_62_nothing_of_the_server_is_inherited_by_a_child_program(server, peer):
    """Neither by one that is started without closing anything: each is closed on exec."""
    before = _links()
    with Server(f"{server.address}2", COMMANDS) as other, Client(other.address) as client:
        server.poll(Host())
        other._hub.deadlines.add(time.monotonic() + 3600, lambda: None)
        client.notify(Echo(1))
        settle(other)
        ours = _links() - before
        shown = (
            "import os\n"
            "for fd in os.listdir('/proc/self/fd'):\n"
            "    try: print(fd, os.readlink('/proc/self/fd/' + fd))\n"
            "    except OSError: pass"
        )
        child = subprocess.run(
            [sys.executable, "-c", shown], close_fds=False, stdout=subprocess.PIPE, check=True
        )
    kinds = sorted(link.partition(" ")[2].partition("[")[0] for link in ours)
    path = other.address
    assert kinds == sorted(
        # epoll, wake, timer; listener, clients; the acceptor's reserves; where the socket lies
        ["anon_inode:"] * 3
        + ["socket:"] * 4
        + [os.devnull] * 2
        + [os.path.dirname(path), f"{path}.lock"]
    )
    assert not ours & set(child.stdout.decode().splitlines())


def test_descriptor_is_constant(server, connect):
    before = server.fileno()
    for i in range(5):
        peer = connect(server)
        peer.call(i, "Echo", value=i)
        answers(server, peer, 1)
        peer.close()
        settle(server)
    assert server.fileno() == before


def test_descriptor_is_minus_one_after_close(server):
    server.close()
    assert server.fileno() == -1


def test_new_server_is_silent(server):
    assert not readable(server)
    assert not server.pending
    assert server.poll(Host()) == 0


def test_connection_makes_it_readable_and_a_silent_client_does_not(server, connect):
    connect(server)
    assert readable(server)
    assert server.poll(Host()) == 0
    assert not readable(server)


def test_half_a_frame_is_read_and_then_it_is_silent(server, peer):
    peer.send(call(1, "Echo", value=1)[:-1])
    assert server.poll(Host()) == 0
    assert not readable(server)
    assert not server.pending


def test_three_frames_in_one_send_one_command_a_poll(server, peer):
    peer.send(*(call(i, "Echo", value=i) for i in range(3)))
    host = Host()
    states = []
    for _ in range(3):
        assert readable(server)
        assert server.poll(host, max_commands=1) == 1
        states.append((readable(server), server.pending))
    assert states == [(True, True), (True, True), (False, False)]
    assert host.log == [0, 1, 2]


def test_hang_up_is_taken_in_and_then_it_is_silent(server, peer):
    server.poll(Host())
    peer.close()
    assert readable(server)
    settle(server)
    assert server.stats()["clients"] == 0


def test_hazard_50_half_closed_client_does_not_keep_it_readable(server, peer):
    peer.call(1, "Echo", value=5)
    peer.socket.shutdown(socket.SHUT_WR)
    assert answers(server, peer, 1) == [[1, 0, 5]]
    settle(server)
    assert peer.received() == []
    assert peer.ended


def test_client_that_does_not_read_does_not_keep_it_readable(server, peer):
    for i in range(4):
        peer.call(i, "Blob", size=1_000_000)
    settle(server)
    assert not server.pending
    got = []
    serve_until(server, lambda: got.extend(peer.received(100_000)) or len(got) == 4)
    assert [len(answer[2]) for answer in got] == [1_000_000] * 4


def test_muted_client_is_served_on_when_it_reads(server, peer):
    for i in range(4):
        peer.call(i, "Blob", size=1_000_000)
    settle(server)
    peer.call(9, "Echo", value=7)  # seen ready, and may not be read: muted
    settle(server)
    got = []
    serve_until(server, lambda: got.extend(peer.received(100_000)) or len(got) == 5)
    assert got[4] == [9, 0, 7]


def test_muted_client_that_hangs_up_is_seen_and_then_it_is_silent(server, peer):
    for i in range(4):
        peer.call(i, "Blob", size=1_000_000)
    settle(server)
    peer.send(call(9, "Echo", value=1))  # seen ready, and may not be read: muted
    settle(server)
    assert server.stats()["clients"] == 1
    peer.close()
    settle(server)
    assert server.stats()["clients"] == 0


def test_wake_makes_it_readable_for_one_poll(server):
    server.wake()
    assert readable(server)
    assert server.poll(Host()) == 0
    assert not readable(server)


def test_hazard_60_wake_from_a_thread_ends_a_wait(server):
    thread = threading.Thread(target=server.wake)
    thread.start()
    assert readable(server, 10)
    thread.join()
    settle(server)


def test_wake_that_comes_while_work_is_left_is_not_lost(server, peer, monkeypatch):
    monkeypatch.setattr(
        "ipcpoll._server.scheduler._LOOK_SECONDS", math.inf
    )  # or a slow machine's poll sees it
    peer.send(call(1, "Echo", value=1), call(2, "Do"))
    host = Host(do=server.wake)
    server.poll(host, max_commands=1)
    assert server.poll(host) == 1  # the command wakes while the wake descriptor is set already
    assert readable(server)
    settle(server)


def test_thousand_wakes_from_threads_are_one_poll(server):
    threads = [
        threading.Thread(target=lambda: [server.wake() for _ in range(250)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert readable(server)
    server.poll(Host())
    assert not readable(server)


def test_wake_after_close_does_nothing(server):
    server.close()
    server.wake()


def test_connections_left_in_the_backlog_keep_it_readable(make_server, connect):
    server = make_server(max_accepts=2)
    peers = [connect(server) for _ in range(5)]
    server.poll(Host())
    assert server.stats()["clients"] == 2
    assert readable(server)
    assert server.pending
    settle(server)
    assert server.stats()["clients"] == len(peers)


def test_read_that_filled_its_buffer_counts_as_work_left(make_server, connect):
    server = make_server(read_size=4096)
    peer = connect(server)
    peer.send(call(1, "Take", data=bytes(10_000)))
    server.poll(Host(), max_commands=0)
    assert server.pending
    assert answers(server, peer, 1) == [[1, 0, 10_000]]


def test_level_triggered_hosts_need_not_ask_for_pending(server, connect):
    """select, poll and epoll agree, whatever the budget of the host is."""
    for wait in (_select, _poll, _epoll):
        peer = connect(server)
        peer.send(*(call(i, "Echo", value=i) for i in range(10)))
        host = Host()
        while wait(server.fileno()):
            server.poll(host, max_commands=1)
        assert host.log == list(range(10))
        assert len(peer.received()) == 10


def _select(fd):
    return select.select([fd], [], [], 0)[0]


def _poll(fd):
    return readable(fd)


def _epoll(fd):
    with select.epoll() as epoll:
        epoll.register(fd, select.EPOLLIN)
        return epoll.poll(0)


def test_edge_triggered_host_polls_until_nothing_is_pending(make_server, connect):
    server = make_server(max_accepts=2)
    with select.epoll() as epoll:
        epoll.register(server.fileno(), select.EPOLLIN | select.EPOLLET)
        peers = [connect(server) for _ in range(7)]
        for peer in peers:
            peer.send(*(call(i, "Echo", value=i) for i in range(3)))
        host = Host()
        events = epoll.poll(0)
        while events:
            server.poll(host, max_commands=2)
            while server.pending:
                server.poll(host, max_commands=2)
            events = epoll.poll(0)
        assert len(host.log) == 21


def test_look_that_is_full_says_that_there_may_be_more(server, monkeypatch):
    """The wake descriptor is one of those that the poller told of, though it says nothing new."""
    round_ = server._round
    hub = server._hub
    for more, pending in ((-1, False), (0, True)):
        others = [(1_000_000 + number, READ) for number in range(MOST_EVENTS - 1 + more)]
        monkeypatch.setattr(hub, "poll", lambda others=others: [(hub.wake_fd, READ), *others])
        round_._wakeup.signal()
        assert not round_._look_again()
        assert server.pending is pending
        monkeypatch.undo()
    settle(server)
    assert not server.pending


def test_idle_second_without_a_wake_up(server, peer):
    """A connected client that does nothing costs the host nothing."""
    server.poll(Host())
    with select.epoll() as epoll:
        epoll.register(server.fileno(), select.EPOLLIN)
        assert epoll.poll(1.0) == []


def test_no_timer_exists_before_the_first_deadline(make_server, connect):
    before = _links()  # an interruption in another test may have left one
    server = make_server()
    connect(server)
    server.poll(Host())
    assert server.next_deadline() is None
    assert not any("timerfd" in link for link in _links() - before)


def test_hazard_65_deadline_makes_the_descriptor_readable_and_leaves_it_silent(make_server):
    """The pause after a failed accept is a deadline: the timer ends it, without a client's help."""
    server = make_server(accept_pause_seconds=0.05)
    peer = socket.socket(socket.AF_UNIX)
    acceptor = server._round._acceptor
    peer.connect(server.address)
    fail = OSError(errno.ENOBUFS, "No buffer space available")
    acceptor._listener = _Failing(acceptor._listener, fail)
    server.poll(Host())
    assert server.next_deadline() == pytest.approx(time.monotonic() + 0.05, abs=0.05)
    assert not readable(server), "the listener is muted and the deadline is not due"
    assert any("timerfd" in link for link in _links())
    assert readable(server, 10), "the timer tells"
    server.poll(Host())
    assert server.next_deadline() is None
    assert server.stats()["clients"] == 0
    server.poll(Host())  # the listener is watched again
    assert server.stats()["clients"] == 1
    assert not readable(server)
    peer.close()


class _Failing:
    """A listener whose first accept fails."""

    def __init__(self, listener, error):
        self.listener = listener
        self.error = error

    def __getattr__(self, name):
        return getattr(self.listener, name)

    def accept(self):
        error, self.error = self.error, None
        if error is not None:
            raise error
        return self.listener.accept()


def _links():
    """Return number and kind of every descriptor of this process."""
    links = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            links.add(f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}")
        except OSError:
            continue
    return links


def test_hazard_65_where_there_is_no_timer_next_deadline_says_when_to_poll(
    make_server, monkeypatch
):
    def no_timer():
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("ipcpoll._system.timers.Timer", no_timer)
    server = make_server(accept_pause_seconds=0.02)
    acceptor = server._round._acceptor
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(server.address)
    fail = OSError(errno.ENOBUFS, "No buffer space available")
    acceptor._listener = _Failing(acceptor._listener, fail)
    server.poll(Host())
    when = server.next_deadline()
    assert when is not None
    while time.monotonic() < when:
        assert server.poll(Host()) == 0
    server.poll(Host())
    assert server.next_deadline() is None
    settle(server)
    assert server.stats()["clients"] == 1
    peer.close()


def test_a_real_second_process_is_served_through_select_alone(server):
    client = run_python(
        "import sys\nfrom harness import Echo\nfrom ipcpoll import Client\n"
        "with Client(sys.argv[1], timeout=20) as client:\n"
        "    print(sum(client.call(Echo(i)) for i in range(300)))",
        server.address,
    )
    assert serve_process(server, client).strip() == str(sum(range(300)))
    settle(server)


@pytest.mark.parametrize("commands", [0, 1, 2, 3, 100])
def test_descriptor_and_pending_agree_whatever_the_budget(make_server, connect, commands):
    server = make_server(max_frames_waiting=3)
    peers = [connect(server) for _ in range(3)]
    for peer in peers:
        peer.send(*(call(i, "Echo", value=i) for i in range(7)))
    host = Host()
    while server.poll(host, max_commands=commands):
        assert readable(server) or not server.pending
    if commands == 0:
        assert readable(server)
        assert host.log == []
        settle(server, host)
    assert len(host.log) == 21
    assert not readable(server)


def test_a_limit_must_make_sense():
    with pytest.raises(ValueError, match=r"Limits.max_clients must be at least 1, not 0"):
        Limits(max_clients=0)


def test_server_on_the_portable_poller_keeps_the_promise(directory, monkeypatch):
    monkeypatch.setattr(
        "ipcpoll._system.hub.make_poller", lambda: SelectorPoller(selectors.EpollSelector())
    )
    with Server(f"{directory}/portable", COMMANDS) as server:
        with Peer(server) as peer:
            peer.send(*(call(i, "Echo", value=i) for i in range(3)))
            host = Host()
            for left in (True, True, False):
                server.poll(host, max_commands=1)
                assert readable(server) is left
            assert len(peer.received()) == 3
            for i in range(4):
                peer.call(i, "Blob", size=1_000_000)
            settle(server)
            peer.call(9, "Echo", value=1)
            settle(server)
        settle(server)
        assert server.stats()["clients"] == 0
