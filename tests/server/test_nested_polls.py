"""A poll inside a poll: a command opened a main loop of its own (a modal dialog, say)."""

from __future__ import annotations

import select
import time

import pytest
from harness import (
    Host,
    answers,
    call,
    finish,
    readable,
    run_python,
    serve_until,
    settle,
)


def nested_loop(server, host, seconds):
    """Watch the server's descriptor as any foreign loop does; return the number of wake-ups."""
    wake_ups = 0
    until = time.monotonic() + seconds
    with select.epoll() as epoll:
        epoll.register(server.fileno(), select.EPOLLIN)
        while (left := until - time.monotonic()) > 0:
            if epoll.poll(left):
                wake_ups += 1
                server.poll(host)
    return wake_ups


def test_hazard_58_other_clients_are_served_inside_and_the_own_order_is_kept(server, connect):
    """With a real second process that calls while the first one's command has a dialog open."""
    own = connect(server)
    wake_ups = []
    host = Host()

    def dialog():
        wake_ups.append(nested_loop(server, host, 0.3))

    host.do = dialog
    own.send(call(1, "Do", value=1), call(2, "Echo", value=2), call(3, "Echo", value=3))
    other = run_python(
        "import sys\nfrom harness import Echo\nfrom ipcpoll import Client\n"
        "with Client(sys.argv[1], timeout=30) as client:\n"
        "    print([client.call(Echo(100 + i)) for i in range(5)])",
        server.address,
    )
    try:
        # The other's connection waits in the backlog before the dialog opens.
        assert readable(server._listener, 30)
        server.poll(host, max_commands=0)
        serve_until(server, lambda: ("do", 1) in host.log, host, max_commands=1)
        got = own.received()
        serve_until(server, lambda: got.extend(own.received()) or len(got) == 3, host)
        serve_until(server, lambda: other.poll() is not None, host)
        assert finish(other).strip() == "[100, 101, 102, 103, 104]"
    finally:
        other.kill()
    assert got == [[1, 0, 1], [2, 0, 2], [3, 0, 3]]
    assert wake_ups[0] < 50
    assert host.log.index(100) > host.log.index(("do", 1)), "served while the dialog was open"


def test_hazard_58_client_is_served_while_the_dialog_is_open(server, connect):
    own, other = connect(server), connect(server)
    host = Host()
    inside = []

    def dialog():
        other.call(7, "Echo", value=7)
        own.send(call(2, "Echo", value=2))
        inside.append(nested_loop(server, host, 0.3))
        inside.append(other.received())
        inside.append(list(host.log))

    host.do = dialog
    own.call(1, "Do", value=1)
    assert answers(server, own, 2, host) == [[1, 0, 1], [2, 0, 2]]
    wake_ups, served, log = inside
    assert served == [[7, 0, 7]]
    assert wake_ups < 50
    assert log == [("do", 1), 7], "the own connection's next call waited"


def test_frames_in_our_own_memory_wake_the_nested_loop(server, connect):
    """The other's two frames came in one read; one was served before the dialog opened."""
    other, own = connect(server), connect(server)
    other.send(call(1, "Echo", value=1), call(2, "Echo", value=2))
    own.call(3, "Do", value=3)
    host = Host()
    inside = []

    def dialog():
        inside.append(readable(server))
        server.poll(host)
        inside.append(other.received())
        inside.append(readable(server))

    host.do = dialog
    server.poll(host)
    assert inside == [True, [[1, 0, 1], [2, 0, 2]], False]


def test_answers_that_wait_are_sent_by_the_nested_poll(server, connect):
    """An answer that waits to be joined with others must not wait for the dialog's end."""
    other, own = connect(server), connect(server)
    other.send(call(1, "Echo", value=1), call(3, "Echo", value=3))
    own.call(2, "Do", value=2)
    host = Host()
    inside = []

    def dialog():
        assert host.log == [1, ("do", 2)]
        assert not other.received()
        assert readable(server)
        server.poll(host)
        inside.extend(other.received())

    host.do = dialog
    server.poll(host)
    assert inside == [[1, 0, 1], [3, 0, 3]]


def test_hazard_49_muted_connection_that_hangs_up_during_its_own_command(server, connect):
    own, other = connect(server), connect(server)
    host = Host()
    wake_ups = []

    def dialog():
        own.send(call(2, "Echo", value=2))
        server.poll(host)  # seen ready: muted
        own.close()
        wake_ups.append(nested_loop(server, host, 0.05))

    host.do = dialog
    own.call(1, "Do", value=1)
    server.poll(host)
    settle(server, host)
    assert wake_ups[0] <= 2
    assert server.stats()["clients"] == 1
    assert host.log == [("do", 1)], "its second call is not run: nobody waits for it"
    other.call(3, "Echo", value=3)
    assert answers(server, other, 1) == [[3, 0, 3]]


def test_new_clients_are_taken_in_by_a_nested_poll(server, connect):
    own = connect(server)
    host = Host()
    late = []

    def dialog():
        peer = connect(server)
        peer.call(5, "Echo", value=5)
        server.poll(host)
        late.extend(peer.received())

    host.do = dialog
    own.call(1, "Do", value=1)
    assert answers(server, own, 1, host) == [[1, 0, 1]]
    assert late == [[5, 0, 5]]


@pytest.mark.parametrize("most", [1, 2, 8])
def test_nested_too_deeply_everything_is_muted_and_comes_back(make_server, connect, most):
    server = make_server(max_nested_polls=most)
    peers = [connect(server) for _ in range(most + 3)]
    host = Host()
    deepest = []

    def deeper():
        depth = len(host.log)
        if depth <= most:
            peers[depth].call(depth, "Do", value=depth)
            if depth == most:
                # One level too deep: this poll serves nobody, and falls silent.
                late = connect(server)
                server.wake()
                deepest.append(readable(server))
                deepest.append(server.poll(host))
                deepest.append(readable(server))
                deepest.append(late)
            else:
                server.poll(host)

    host.do = deeper
    peers[0].call(0, "Do", value=0)
    server.poll(host)
    assert deepest[:3] == [True, 0, False]
    assert host.log[:most] == [("do", i) for i in range(most)]
    settle(server, host)
    assert host.log[most:] == [("do", most)], "who was muted is served afterwards"
    for i in range(most + 1):
        assert peers[i].received() == [[i, 0, i]]
    deepest[3].call(9, "Echo", value=9)
    assert answers(server, deepest[3], 1) == [[9, 0, 9]]


def test_hazard_49_too_deep_a_hang_up_and_a_slow_reader_do_not_spin(make_server, connect):
    server = make_server(max_nested_polls=1)
    own, reader, leaver = (connect(server) for _ in range(3))
    reader.send(*(call(i, "Blob", size=1_000_000) for i in range(2)))
    settle(server)
    host = Host()
    inside = []

    def deeper():
        leaver.close()
        reader.received(200_000)  # now there is room: the poller says so
        assert readable(server)
        inside.append(nested_loop(server, host, 0.05))

    host.do = deeper
    own.call(1, "Do", value=1)
    server.poll(host)
    assert inside[0] <= 2
    got = []
    serve_until(server, lambda: got.extend(reader.received(100_000)) or len(got) == 2, host)
    settle(server, host)
    assert server.stats()["clients"] == 2


def test_too_deep_work_that_is_left_does_not_spin(make_server, connect):
    """Another client's frames wait in our own memory while nobody may be served."""
    server = make_server(max_nested_polls=1)
    other, own = connect(server), connect(server)
    other.send(*(call(i, "Echo", value=i) for i in range(3)))
    own.call(9, "Do", value=9)
    host = Host()
    wake_ups = []

    def dialog():
        wake_ups.append(nested_loop(server, host, 0.05))

    host.do = dialog
    server.poll(host, max_commands=2)  # one of the other's frames, and the dialog
    assert host.log == [0, ("do", 9)]
    assert wake_ups[0] <= 2
    assert readable(server), "and afterwards it is told of"
    settle(server, host)
    assert host.log == [0, ("do", 9), 1, 2]
    assert own.received() == [[9, 0, 9]]


def test_deadline_that_is_due_too_deep_is_kept(make_server, connect):
    server = make_server(max_nested_polls=1)
    own = connect(server)
    done = []
    host = Host()

    def deeper():
        server._hub.deadlines.add(time.monotonic(), lambda: done.append(1))
        assert readable(server, 10)
        server.poll(host)
        assert not readable(server)

    host.do = deeper
    own.call(1, "Do", value=1)
    assert answers(server, own, 1, host) == [[1, 0, 1]]
    assert done == [1]


def test_context_and_budget_of_a_nested_poll_are_its_own(server, connect):
    own, other = connect(server), connect(server)
    host, inner = Host(), Host()

    def dialog():
        other.send(call(1, "Echo", value=1), call(2, "Echo", value=2))
        assert server.poll(inner, max_commands=1) == 1

    host.do = dialog
    own.call(1, "Do", value=1)
    server.poll(host, max_commands=1)
    assert inner.log == [1]
    settle(server, host)
    assert host.log == [("do", 1), 2]


def test_interruption_behind_a_command_in_which_a_nested_poll_saw_its_client(
    server, connect, monkeypatch
):
    """The nested poll leaves the mark of the outer one: the client is closed, not forgotten."""
    peer = connect(server)
    peer.call(1, "Do", value=1)

    def nested():
        peer.call(2, "Echo", value=2)
        server.poll(host)

    def interrupted(*_):
        monkeypatch.undo()
        raise KeyboardInterrupt

    host = Host(do=nested)
    monkeypatch.setattr("ipcpoll._server.connection.ServerConnection.queue", interrupted)
    with pytest.raises(KeyboardInterrupt):
        server.poll(host)
    settle(server)
    assert peer.received() == []
    assert peer.ended
    assert server.stats()["clients"] == 0
