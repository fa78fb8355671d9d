"""The short way of the one client that is ready: everything else holds there as well."""

import pytest
from harness import Host, Peer, answers, call, readable, settle

from ipcpoll._server.connection import ServerConnection
from ipcpoll._server.scheduler import Scheduler
from ipcpoll._system.sockets import FIRST_READ
from ipcpoll._wire.framing import frame


@pytest.fixture
def known(server, peer):
    """A client that the server has taken in, and nothing else to do."""
    peer.call(0, "Echo", value=0)
    assert answers(server, peer, 1) == [[0, 0, 0]]
    settle(server)
    return peer


@pytest.fixture
def ways(monkeypatch):
    """Count how often the short way was taken, and how often the usual one."""
    counts = {"alone": 0, "usual": 0}

    def counted(name, method, what):
        def count(self, *arguments):
            result = method(self, *arguments)
            counts[what] += result is not None
            return result

        monkeypatch.setattr(Scheduler, name, count)

    counted("_serve_alone", Scheduler._serve_alone, "alone")
    counted("_work", Scheduler._work, "usual")
    return counts


def test_one_call_is_answered_in_short(server, known, ways):
    known.call(1, "Echo", value=7)
    assert server.poll(Host()) == 1
    assert known.received() == [[1, 0, 7]]
    assert ways == {"alone": 1, "usual": 0}
    assert not readable(server)
    assert not server.pending
    assert server.stats()["turns"] == 2


def test_notification_is_run_in_short(server, known, ways):
    host = Host()
    known.call(None, "Echo", value=7)
    assert server.poll(host) == 1
    assert host.log == [7]
    assert known.received() == []
    assert ways == {"alone": 1, "usual": 0}


@pytest.mark.parametrize(
    "data",
    [
        call(1, "Echo", value=1) + call(2, "Echo", value=2),
        call(1, "Echo", value=1)[:-1],
        frame(b"\x81\x07"),
        frame(b"\x83\x01\x64Echo\xa1\x65value\x61x"),
        call(1, "Echo", value="text"),
        call(1, "Nothing"),
        call(1, "Blob", size=3) + b"\xd8",
    ],
)
def test_anything_else_goes_the_usual_way(server, connect, data):
    """And gives what it would give to a client beside another one."""
    alone, beside, other = (connect(server) for _ in range(3))
    for peer in (alone, beside, other):
        peer.call(0, "Echo", value=0)
        answers(server, peer, 1)
    alone.send(data)
    settle(server)
    beside.send(data)
    other.call(1, "Echo", value=9)
    settle(server)
    assert alone.received() == beside.received()
    assert other.received() == [[1, 0, 9]]


def test_two_that_are_ready_go_the_usual_way(server, known, connect, ways):
    other = connect(server)
    settle(server)
    before = dict(ways)
    known.call(1, "Echo", value=1)
    other.call(1, "Echo", value=2)
    assert server.poll(Host()) == 2
    assert ways["alone"] == before["alone"]
    assert known.received() + other.received() == [[1, 0, 1], [1, 0, 2]]


def test_taking_in_and_running_nothing_is_no_short_way(server, known, ways):
    host = Host()
    known.call(1, "Echo", value=1)
    assert server.poll(host, max_commands=0) == 0
    assert (host.log, ways["alone"]) == ([], 0)
    assert server.pending
    assert readable(server)
    assert server.poll(host) == 1
    assert known.received() == [[1, 0, 1]]


@pytest.mark.parametrize("budget", [{"max_commands": 1}, {"max_seconds": 0}, {"max_seconds": 9}])
def test_budgets_that_allow_one_turn_allow_it(server, known, ways, budget):
    known.call(1, "Echo", value=1)
    assert server.poll(Host(), **budget) == 1
    assert ways["alone"] == 1


@pytest.mark.parametrize("budget", [{"max_commands": -1}, {"max_seconds": -1.0}])
def test_bad_budgets_are_refused_all_the_same(server, known, budget):
    known.call(1, "Echo", value=1)
    with pytest.raises(ValueError, match="must be at least 0"):
        server.poll(Host(), **budget)
    assert server.poll(Host()) == 1


@pytest.mark.parametrize("size", [10, 500_000, 3_000_000])
def test_answer_that_does_not_fit_is_sent_to_its_end(server, known, ways, size):
    known.call(1, "Blob", size=size)
    assert server.poll(Host()) == 1
    assert answers(server, known, 1) == [[1, 0, bytes(size)]]
    assert ways["alone"] >= 1
    settle(server)


def test_client_that_does_not_read_its_answers_is_waited_for(server, known):
    for i in range(3):
        known.call(i, "Blob", size=400_000)
        settle(server)
    assert answers(server, known, 3) == [[i, 0, bytes(400_000)] for i in range(3)]


@pytest.mark.parametrize("more", [0, 1])
def test_call_that_fills_a_read_is_answered_like_any_other(server, known, more):
    """A filled read says that there may be more."""
    size = FIRST_READ + more
    data = call(
        1, "Take", data=bytes(size - len(call(1, "Take", data=bytes(FIRST_READ // 2))) + 2048)
    )
    assert len(data) == size
    known.send(data)
    settle(server)
    [[call_id, kind, _]] = known.received()
    assert (call_id, kind) == (1, 0)


def test_client_that_left_nothing_is_seen_off_in_one_poll(server, known, ways):
    known.close()
    assert readable(server)
    assert server.poll(Host()) == 0
    assert ways == {"alone": 1, "usual": 0}
    assert server.stats()["clients"] == 0
    assert not readable(server)


@pytest.mark.parametrize("left", [call(None, "Echo", value=7), call(1, "Echo", value=7)])
def test_what_a_client_left_is_dealt_with_before_it_is_seen_off(server, known, left):
    """A notification is run, a call is not: nobody waits for its answer."""
    host = Host()
    known.send(left)
    known.close()
    settle(server, host)
    assert host.log == ([7] if left == call(None, "Echo", value=7) else [])
    stats = server.stats()
    assert (stats["clients"], stats["dropped"]) == (0, len(host.log) ^ 1)


def test_client_that_was_to_make_room_and_has_called_is_served(make_server, connect):
    """The new one finds no room; the silent one that it looks at has just sent its call."""
    server = make_server(max_clients=1)
    silent = connect(server)
    settle(server)
    newcomer = connect(server)
    newcomer.call(1, "Echo", value=2)
    accept = server._round._accept

    def accept_late(*bounds):
        silent.call(1, "Echo", value=1)  # behind the look that found the newcomer alone
        accept(*bounds)

    server._round._accept = accept_late
    server.poll(Host())
    del server._round._accept
    settle(server)
    assert silent.received() == [[1, 0, 1]]
    [[call_id, kind, error]] = newcomer.received()
    assert (call_id, kind, error["code"]) == (None, 1, "busy")


def test_half_a_frame_of_a_client_that_left_is_forgotten(server, known):
    known.send(call(1, "Echo", value=7)[:5])
    settle(server)
    known.close()
    settle(server)
    assert server.stats()["clients"] == 0
    assert server._clients.held == 0


def test_command_that_polls_finds_the_others_served(server, known, connect):
    other = connect(server)
    host = Host()

    def nested():
        other.call(1, "Echo", value=5)
        known.call(2, "Echo", value=6)  # of the client whose command is running
        while readable(server):
            server.poll(host)
        assert other.received() == [[1, 0, 5]]

    host.do = nested
    known.call(1, "Do", value=4)
    settle(server, host)
    assert known.received() == [[1, 0, 4], [2, 0, 6]]


def test_command_that_closes_the_server_is_answered(server, known):
    host = Host(do=server.close)
    known.call(1, "Do", value=4)
    assert server.poll(host) == 1
    assert known.received()[0] == [1, 0, 4]
    assert server.closed


def test_command_whose_client_leaves_while_it_polls(server, known):
    host = Host()

    def nested():
        known.close()
        while readable(server):
            server.poll(host)

    host.do = nested
    known.call(1, "Do", value=4)
    settle(server, host)
    assert server.stats()["clients"] == 0


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_interrupted_command_ends_its_connection_and_no_other(server, known, connect, interrupt):
    other = connect(server)
    settle(server)

    def stop():
        raise interrupt

    known.call(1, "Do", value=4)
    with pytest.raises(interrupt):
        server.poll(Host(do=stop))
    [[call_id, kind, error]] = known.received()
    assert (call_id, kind, error["code"]) == (1, 1, "internal")
    known.received()
    assert known.ended
    other.call(1, "Echo", value=5)
    assert answers(server, other, 1) == [[1, 0, 5]]


def test_interrupted_send_ends_its_connection(server, known, monkeypatch):
    """Nobody knows how much of it was sent."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ServerConnection, "send_alone", interrupted)
    known.call(1, "Echo", value=1)
    with pytest.raises(KeyboardInterrupt):
        server.poll(Host())
    monkeypatch.undo()
    settle(server)
    assert server.stats()["clients"] == 0
    with Peer(server) as other:
        other.call(1, "Echo", value=5)
        assert answers(server, other, 1) == [[1, 0, 5]]
