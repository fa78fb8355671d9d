"""`close`: from outside and inside commands, at any depth; and the error that each caller gets."""

from __future__ import annotations

import os
import select
import threading

import pytest
from harness import COMMANDS, Echo, Host, Peer, answers, call, readable, serve_until, settle

from ipcpoll import Client, Server, ShuttingDown, UsageError

FAREWELL = {"code": "shutting-down", "message": "the server closed before the call had its turn"}


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


def test_close_frees_every_descriptor_and_removes_the_socket(directory):
    before = open_descriptors()
    server = Server(f"{directory}/s", COMMANDS)
    peers = [Peer(server) for _ in range(3)]
    server.poll(Host())
    for peer in peers:
        peer.close()
    server.close()
    assert open_descriptors() == before
    assert not os.path.exists(server.address)


def test_close_twice_and_the_attributes_afterwards(server):
    address = server.address
    server.close()
    server.close()
    assert server.closed
    assert server.address == address
    assert server.fileno() == -1
    assert not server.pending
    assert server.next_deadline() is None
    assert server.stats()["clients"] == 0
    assert repr(server) == f"<ipcpoll.Server {address} (closed)>"


def test_context_manager_closes(directory):
    with Server(f"{directory}/s", COMMANDS) as server:
        assert not server.closed
    assert server.closed


def test_calls_that_wait_are_told(server, connect):
    peers = [connect(server) for _ in range(3)]
    for peer in peers:
        peer.send(*(call(i, "Echo", value=i) for i in range(4)))
    server.poll(Host(), max_commands=4)
    server.close()
    got = [peer.received() for peer in peers]
    assert got[0] == [[0, 0, 0], [1, 0, 1], [None, 1, FAREWELL]]
    assert got[1] == [[0, 0, 0], [None, 1, FAREWELL]]
    assert all(peer.ended for peer in peers)


def test_calls_that_were_not_even_read_are_told(server, peer):
    server.poll(Host())
    peer.call(1, "Echo", value=1)
    server.close()
    assert peer.received() == [[None, 1, FAREWELL]]


def test_hazard_59_answer_then_stop(server, connect):
    """Closing inside a command: its caller still gets its answer, all others are told."""
    peer, other = connect(server), connect(server)
    peer.send(call(1, "Do", value=1), call(2, "Echo", value=2))
    other.call(3, "Echo", value=3)
    host = Host(do=server.close)
    assert server.poll(host) == 1
    assert server.closed
    assert peer.received() == [[1, 0, 1], [None, 1, FAREWELL]]
    assert other.received() == [[None, 1, FAREWELL]]
    assert peer.ended
    assert other.ended
    assert host.log == [("do", 1)]
    with pytest.raises(UsageError):
        server.poll(host)


def test_answer_then_stop_frees_every_descriptor(directory):
    before = open_descriptors()
    server = Server(f"{directory}/s", COMMANDS)
    with Peer(server) as peer:
        peer.call(1, "Do", value=1)
        server.poll(Host(do=server.close))
        assert peer.received()[0] == [1, 0, 1]
    assert open_descriptors() == before


def test_hazard_59_close_in_a_nested_poll_answers_every_call_on_the_stack(server, connect):
    peers = [connect(server) for _ in range(4)]
    host = Host()
    polls = []

    def deeper():
        depth = len(host.log)
        if depth == 3:
            peers[3].call(9, "Echo", value=9)
            server.close()
            return
        peers[depth].call(depth, "Do", value=depth)
        polls.append(server.poll(host))

    host.do = deeper
    peers[0].call(0, "Do", value=0)
    polls.append(server.poll(host))
    assert len(polls) == 3, "outer polls return normally"
    for i in range(3):
        assert peers[i].received()[0] == [i, 0, i]
        assert peers[i].ended
    assert peers[3].received() == [[None, 1, FAREWELL]]
    assert peers[3].ended


def test_nested_poll_of_a_server_that_was_closed_inside_raises(server, peer):
    raised = []

    def close_and_poll():
        server.close()
        try:
            server.poll(Host())
        except UsageError as error:
            raised.append(str(error))

    peer.call(1, "Do", value=1)
    server.poll(Host(do=close_and_poll))
    assert raised == ["the server is closed"]
    assert peer.received()[0] == [1, 0, 1]


def test_command_that_closes_and_raises(server, peer):
    def close_and_raise():
        server.close()
        raise ValueError("after all")

    peer.call(1, "Do", value=1)
    server.poll(Host(do=close_and_raise))
    error, farewell = peer.received()
    assert error[2]["code"] == "internal"
    assert farewell == [None, 1, FAREWELL]


def test_command_that_closes_and_is_interrupted(server, peer):
    def close_and_stop():
        server.close()
        raise KeyboardInterrupt

    peer.call(1, "Do", value=1)
    with pytest.raises(KeyboardInterrupt):
        server.poll(Host(do=close_and_stop))
    [error] = peer.received()
    assert error[2]["code"] == "internal"
    assert peer.ended


def test_caller_that_hung_up_while_its_command_closed_the_server(server, connect):
    peer = connect(server)

    def leave_and_close():
        peer.close()
        server.close()

    peer.call(1, "Do", value=1)
    assert server.poll(Host(do=leave_and_close)) == 1


def test_answer_that_does_not_fit_at_close_is_logged(server, connect, caplog):
    peer = connect(server)
    peer.call(1, "Blob", size=2_000_000)
    server.poll(Host())
    server.close()
    assert "did not read its answers" in caplog.text
    peer.received()
    assert peer.ended


def test_answers_that_fit_at_close_are_sent_beside_a_large_one(make_server, connect):
    server = make_server(max_unsent=1 << 20)
    peer = connect(server)
    peer.send(call(1, "Blob", size=10), call(2, "Blob", size=10), call(3, "Blob", size=300_000))
    peer.call(4, "Do")
    server.poll(Host(do=server.close))
    assert [answer[0] for answer in peer.received()] == [1, 2]


def test_descriptor_number_can_be_used_again_a_hundred_times(directory):
    numbers = set()
    for i in range(100):
        with Server(f"{directory}/s", COMMANDS) as server:
            numbers.add(server.fileno())
            with Peer(server) as peer:
                peer.call(i, "Echo", value=i)
                assert answers(server, peer, 1) == [[i, 0, i]]
            settle(server)
    assert len(numbers) == 1


def test_hazard_47_interrupt_of_a_client_in_one_batch_does_not_touch_its_neighbour(server, connect):
    """A command closes another client's socket in the same batch; the number comes back."""
    first, second = connect(server), connect(server)
    server.poll(Host())
    first.call(1, "Do", value=1)
    second.call(2, "Echo", value=2)
    third = []

    def swap():
        second.close()
        third.append(connect(server))
        third[0].call(3, "Echo", value=3)

    host = Host(do=swap)
    serve_until(server, lambda: third and server.stats()["clients"] == 2, host)
    assert answers(server, third[0], 1, host) == [[3, 0, 3]]
    assert first.received() == [[1, 0, 1]]


def test_client_is_told_that_the_program_is_shutting_down(server):
    caught = []

    def ask():
        with Client(server.address, timeout=20) as client:
            try:
                client.call(Echo(1))
            except ShuttingDown as error:
                caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert readable(server, 20)
    serve_until(server, lambda: server.pending, max_commands=0)
    server.close()
    thread.join()
    assert caught[0].code == "shutting-down"


# ---------------------------------------------------------------------------------------------
# From another thread


def in_a_thread(function):
    """Call it in another thread; return what it raised."""
    errors = []

    def call_it():
        try:
            function()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=call_it)
    thread.start()
    thread.join()
    return errors[0] if errors else None


def test_hazard_60_close_while_another_thread_sleeps_on_the_descriptor(directory):
    """Nothing would wake that: so it is refused, and that thread closes."""
    server = Server(f"{directory}/s", COMMANDS)
    host, asleep, stop = Host(), threading.Event(), threading.Event()

    def loop():
        while not stop.is_set():
            poll = select.poll()
            poll.register(server, select.POLLIN)
            asleep.set()
            poll.poll()
            server.poll(host)
        server.close()

    thread = threading.Thread(target=loop)
    thread.start()
    asleep.wait()
    with pytest.raises(UsageError, match=r"may sleep on its descriptor.*wake\(\)"):
        server.close()
    assert not server.closed
    with Client(server.address, timeout=20) as client:
        assert client.call(Echo(1)) == 1, "it goes on"
    stop.set()
    server.wake()
    thread.join()
    assert server.closed


@pytest.mark.parametrize("has_polled", [False, True])
def test_hazard_60_close_when_the_thread_that_polled_has_ended(directory, has_polled):
    server = Server(f"{directory}/s", COMMANDS)
    if has_polled:
        with Peer(server) as peer:
            peer.call(1, "Echo", value=1)
            assert in_a_thread(lambda: server.poll(Host())) is None
    else:
        assert in_a_thread(server.fileno) is None
    server.close()
    assert server.closed


@pytest.mark.parametrize("before", ["made", "polled", "served"])
def test_hazard_60_close_in_the_thread_that_polls_without_the_descriptor(directory, before):
    """A loop of frames: nobody sleeps on it, and an idle poll does not note who polls."""
    server = Server(f"{directory}/s", COMMANDS)
    if before == "polled":
        server.poll(Host())
    elif before == "served":
        with Peer(server) as peer:
            peer.call(1, "Echo", value=1)
            server.poll(Host())
        server.poll(Host())

    def frames():
        for _ in range(3):
            server.poll(Host())
        server.close()

    assert in_a_thread(frames) is None
    assert server.closed


def test_hazard_60_descriptor_asked_for_here_and_waited_on_there(directory):
    """Also by a loop that has not served anybody yet, and has polled first."""
    server = Server(f"{directory}/s", COMMANDS)
    poll = select.poll()
    poll.register(server, select.POLLIN)

    def loop():
        server.poll(Host())
        poll.poll(0)
        server.close()

    assert in_a_thread(loop) is None
    assert server.closed


def test_hazard_60_number_of_the_thread_that_has_ended_is_used_again(directory):
    """The kernel gives it to the next thread, which has nothing to do with the server."""
    server = Server(f"{directory}/s", COMMANDS)
    assert in_a_thread(server.fileno) is None
    over = threading.Event()
    others = [threading.Thread(target=over.wait) for _ in range(20)]
    for other in others:
        other.start()
    try:
        server._thread = others[0].ident  # as it is as a rule
        server.close()
    finally:
        over.set()
        for other in others:
            other.join()
    assert server.closed


def test_hazard_60_close_while_another_thread_polls(server, peer):
    errors = []
    host = Host(do=lambda: errors.append(in_a_thread(server.close)))
    peer.call(1, "Do", value=1)
    server.poll(host)
    assert "another thread is inside poll()" in str(errors[0])
    assert not server.closed


def test_hazard_60_two_threads_that_poll_in_turn(server, peer):
    """It is not noticed, and works: only one is inside at a time."""
    peer.call(1, "Echo", value=1)
    assert in_a_thread(lambda: server.poll(Host())) is None
    peer.call(2, "Echo", value=2)
    server.poll(Host())
    assert peer.received() == [[1, 0, 1], [2, 0, 2]]


def test_hazard_60_wake_in_any_thread_and_after_close(server):
    assert not readable(server)
    assert in_a_thread(server.wake) is None
    assert readable(server)
    settle(server)
    server.close()
    assert in_a_thread(server.wake) is None
    server.wake()
