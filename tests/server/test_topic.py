"""Subscriptions: one publishes, each subscriber gets it, and no slow one slows another."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from dataclasses import dataclass, field
from typing import Any

import pytest
from harness import Peer, call, encode, readable, serve_until, settle

from ipcpoll import Server, Subscription, Topic, UsageError


@dataclass
class News:
    """One piece."""

    text: str
    number: int = 0


@dataclass
class Desk:
    """The program."""

    topic: Topic[News] = field(default_factory=lambda: Topic[News](depth=64))
    kept: list[Any] = field(default_factory=list)


@dataclass
class Watch:
    def process(self, ctx: Desk) -> Subscription[News]:
        return ctx.topic.subscribe()


@dataclass
class WatchNumbers:
    """A command that promises other pieces of the same topic."""

    def process(self, ctx: Desk) -> Subscription[int]:
        return ctx.topic.subscribe()  # type: ignore[return-value]


@dataclass
class Again:
    """Returns one subscription for every call."""

    def process(self, ctx: Desk) -> Subscription[News]:
        if not ctx.kept:
            ctx.kept.append(ctx.topic.subscribe())
        return ctx.kept[0]


@dataclass
class Changes:
    """Subscribes, and then thinks better of it."""

    def process(self, ctx: Desk) -> Subscription[News]:
        ctx.topic.subscribe()
        raise RuntimeError("on second thoughts")


@dataclass
class Now:
    value: int

    def process(self, ctx: Desk) -> int:
        return self.value


COMMANDS = [Watch, WatchNumbers, Again, Changes, Now]


@pytest.fixture
def desk():
    return Desk()


@pytest.fixture
def server(make_server):
    return make_server(COMMANDS)


def subscribe(server, desk, call_id=1):
    peer = Peer(server)
    peer.send(call(call_id, "Watch"))
    before = desk.topic.subscribers
    serve_until(server, lambda: desk.topic.subscribers > before, desk)
    settle(server, desk)
    return peer


def replies(server, peer, count, desk):
    got = []
    serve_until(server, lambda: got.extend(peer.received()) or len(got) >= count, desk)
    assert len(got) == count
    return got


def texts(messages):
    return [message[2]["text"] for message in messages]


def test_every_subscriber_gets_every_piece(server, desk):
    peers = [subscribe(server, desk, n) for n in (1, 1, 7)]
    assert not readable(server, 0.05)
    for text in "abc":
        desk.topic.publish(News(text))
    assert readable(server)
    for n, peer in zip((1, 1, 7), peers, strict=True):
        got = replies(server, peer, 3, desk)
        assert [message[:2] for message in got] == [[n, 2]] * 3
        assert texts(got) == ["a", "b", "c"]
        peer.close()
    settle(server, desk)
    assert desk.topic.subscribers == 0


def test_a_piece_may_change_when_it_was_published(server, desk):
    with subscribe(server, desk) as peer:
        news = News("before")
        desk.topic.publish(news)
        news.text = "after"
        assert texts(replies(server, peer, 1, desk)) == ["before"]


def test_one_encoding_for_all(server, desk, monkeypatch):
    from ipcpoll._schema.commands import CommandType

    encoded = []
    real = CommandType.encode_piece

    def count(self, value):
        encoded.append(value)
        return real(self, value)

    monkeypatch.setattr(CommandType, "encode_piece", count)
    peers = [subscribe(server, desk) for _ in range(50)]
    desk.topic.publish(News("once"))
    for peer in peers:
        assert texts(replies(server, peer, 1, desk)) == ["once"]
        peer.close()
    assert len(encoded) == 1
    settle(server, desk)


def test_published_from_a_thread(server, desk):
    with subscribe(server, desk) as peer:
        thread = threading.Thread(target=desk.topic.publish, args=[News("from afar")])
        thread.start()
        assert readable(server, 20)
        assert texts(replies(server, peer, 1, desk)) == ["from afar"]
        thread.join()


def test_the_first_piece_is_the_state(server, desk):
    desk.topic = Topic(state=lambda: News("now", len(desk.kept)))
    with subscribe(server, desk) as peer, subscribe(server, desk) as other:
        assert texts(replies(server, peer, 1, desk)) == ["now"]
        desk.topic.publish(News("later"))
        assert texts(replies(server, peer, 1, desk)) == ["later"]
        assert texts(replies(server, other, 2, desk)) == ["now", "later"]


def test_a_state_that_raises_is_the_calls_error(server, desk, caplog):
    def state():
        raise OSError("no state")

    desk.topic = Topic(state=state)
    with Peer(server) as peer:
        peer.send(call(1, "Watch"))
        [[_, kind, body]] = replies(server, peer, 1, desk)
        assert (kind, body["code"], body["message"]) == (
            1,
            "internal",
            "Watch raised OSError: no state",
        )
        assert desk.topic.subscribers == 0
        settle(server, desk)


def test_a_subscriber_that_does_not_read_loses_the_oldest_and_is_told(server, desk):
    text = "x" * 10_000
    with subscribe(server, desk) as slow, subscribe(server, desk) as good:
        got = []
        for number in range(500):
            desk.topic.publish(News(text, number))
            got.extend(replies(server, good, 1, desk))
        assert [message[2]["number"] for message in got] == list(range(500))
        assert all(len(message) == 3 for message in got)
        settle(server, desk)
        late = []

        def all_read():
            late.extend(slow.received())
            return late and late[-1][2]["number"] == 499

        serve_until(server, all_read, desk)
        numbers = [message[2]["number"] for message in late]
        assert numbers == sorted(set(numbers))
        lost = 0
        for before, message in zip([-1, *numbers], late, strict=False):
            told = message[3]["lost"] if len(message) == 4 else 0
            assert message[2]["number"] - before - 1 == told
            lost += told
        assert lost == 500 - len(late) > 100
        assert numbers[-64:] == list(range(436, 500))  # the newest are kept
        desk.topic.publish(News("on"))
        assert texts(replies(server, slow, 1, desk)) == ["on"]


def test_a_plain_call_passes_a_flood_of_pieces(server, desk):
    with subscribe(server, desk) as peer, Peer(server) as other:
        for number in range(64):
            desk.topic.publish(News("x" * 20_000, number))
        other.send(call(1, "Now", value=1))
        server.poll(desk, max_commands=3, max_seconds=60)
        assert other.received() == [[1, 0, 1]]
        replies(server, peer, 64, desk)


def test_close_ends_it_behind_what_was_published(server, desk):
    with subscribe(server, desk) as peer:
        desk.topic.publish(News("last"))
        desk.topic.close()
        desk.topic.close()
        piece, end = replies(server, peer, 2, desk)
        assert piece[2]["text"] == "last"
        assert end == [1, 0, None]
        desk.topic.publish(News("into the void"))
        settle(server, desk)
        assert peer.received() == []
    with pytest.raises(UsageError, match=r"^the topic is closed$"):
        desk.topic.subscribe()


def test_cancel_leaves_the_topic(server, desk):
    with subscribe(server, desk) as peer:
        peer.send(encode([1]))
        [[_, kind, body]] = replies(server, peer, 1, desk)
        assert (kind, body["code"]) == (1, "cancelled")
        assert desk.topic.subscribers == 0
        desk.topic.publish(News("nobody"))
        assert not readable(server)


def test_a_notification_of_a_subscription_is_nobodys(server, desk):
    """Nobody could ever end it, and there are only so many."""
    with Peer(server) as peer:
        peer.send(call(None, "Watch"))
        settle(server, desk)
        assert desk.topic.subscribers == 0
        assert server.stats()["in_flight"] == 0
        desk.topic.publish(News("a"))
        assert not readable(server)
        assert peer.received() == []


def test_what_was_not_promised_is_refused_by_publish(server, desk):
    with subscribe(server, desk) as peer:
        with pytest.raises(TypeError, match="Watch's piece must be a `News`, not 5"):
            desk.topic.publish(5)
        desk.topic.publish(News("good"))
        assert texts(replies(server, peer, 1, desk)) == ["good"]
    with Peer(server) as numbers:
        numbers.send(call(1, "WatchNumbers"))
        settle(server, desk)
        desk.topic.publish(7)
        assert replies(server, numbers, 1, desk) == [[1, 2, 7]]


def test_one_subscription_serves_one_call(server, desk):
    with Peer(server) as peer:
        peer.send(call(1, "Again"), call(2, "Again"))
        [[call_id, kind, body]] = replies(server, peer, 1, desk)
        assert (call_id, kind) == (2, 1)
        assert "a subscription serves one call" in body["message"]
        desk.topic.publish(News("one"))
        assert replies(server, peer, 1, desk)[0][:2] == [1, 2]


def test_a_subscription_that_was_not_returned_is_nobodys(server, desk):
    with Peer(server) as peer:
        peer.send(call(1, "Changes"))
        replies(server, peer, 1, desk)
        gc.collect()
        assert desk.topic.subscribers == 0
    assert repr(desk.topic) == "<ipcpoll.Topic (0 subscribers)>"


def test_depth_below_1():
    with pytest.raises(ValueError, match=r"^depth must be at least 1, not 0$"):
        Topic(depth=0)


def test_subscribers_of_two_servers(make_server, desk):
    one, two = make_server(COMMANDS), make_server(COMMANDS)
    with subscribe(one, desk) as first, subscribe(two, desk) as second:
        desk.topic.publish(News("both"))
        assert texts(replies(one, first, 1, desk)) == ["both"]
        assert texts(replies(two, second, 1, desk)) == ["both"]
        one.close()
        assert desk.topic.subscribers == 1


def test_a_forked_child_has_no_subscribers(server, desk):
    with subscribe(server, desk) as peer:
        pid = os.fork()
        if pid == 0:
            try:
                desk.topic.publish(News("in the child"))
                os._exit(0 if desk.topic.subscribers == 0 else 1)
            finally:
                os._exit(2)
        assert os.waitpid(pid, 0)[1] == 0
        desk.topic.publish(News("here"))
        assert texts(replies(server, peer, 1, desk)) == ["here"]


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_server_that_was_forgotten_has_no_subscribers(directory, desk):
    server = Server(f"{directory}/forgotten.sock", COMMANDS)
    with subscribe(server, desk):
        del server
        gc.collect()
        assert desk.topic.subscribers == 0
        desk.topic.publish(5)  # encoded for nobody, so nobody complains


def test_nothing_is_left_of_a_subscriber(server, desk):
    with subscribe(server, desk):
        [connection] = server._clients.connections.values()
        protocol = weakref.ref(connection.protocol)
        [late] = connection.jobs.values()
        place = weakref.ref(late.work._subscription)
        del connection, late
    settle(server, desk)
    gc.collect()
    assert place() is None
    assert protocol() is None


def test_many_publishers_and_each_piece_once(server, desk):
    """Four threads publish while the server polls; nothing is lost or doubled."""
    desk.topic = Topic(depth=4000)
    with subscribe(server, desk) as peer, subscribe(server, desk) as other:

        def publish(name):
            for number in range(1000):
                desk.topic.publish(News(name, number))

        threads = [threading.Thread(target=publish, args=[name]) for name in "abcd"]
        for thread in threads:
            thread.start()
        for one in (peer, other):
            got = replies(server, one, 4000, desk)
            for name in "abcd":
                numbers = [m[2]["number"] for m in got if m[2]["text"] == name]
                assert numbers == list(range(1000))
            assert all(len(message) == 3 for message in got)
        for thread in threads:
            thread.join()


def test_one_turn_sends_no_more_than_64_kib_and_a_piece(server, desk):
    with subscribe(server, desk) as peer:
        for number in range(20):
            desk.topic.publish(News("x" * 20_000, number))
        assert server.poll(desk, max_commands=1, max_seconds=60) == 1
        got = peer.received()
        assert [message[2]["number"] for message in got] == [0, 1, 2, 3]
        assert len(replies(server, peer, 16, desk)) == 16


def test_what_a_topic_keeps_is_bounded(server, desk):
    """The newest pieces, and few of the runs that were made of them."""
    with subscribe(server, desk) as peer, subscribe(server, desk, call_id=2) as other:
        for number in range(200):
            desk.topic.publish(News("a", number))
            for one in (peer, other):
                [message] = replies(server, one, 1, desk)
                assert message[2]["number"] == number
        assert len(desk.topic._shelf._pieces) == 64  # its depth
        assert len(desk.topic._shelf._runs) == 8


def test_50_subscribers_of_which_5_do_not_read(server, desk):
    """45 get all of it; the 5 are told what they lost; what is kept is bounded meanwhile."""
    pieces, batch = 2000, 50
    peers = [subscribe(server, desk) for _ in range(50)]
    good, silent = peers[:45], peers[45:]
    got = [0] * 45
    text = "x" * 1000
    for begin in range(0, pieces, batch):
        for number in range(begin, begin + batch):
            desk.topic.publish(News(text, number))
        for index, peer in enumerate(good):
            while got[index] < begin + batch:
                if readable(server):
                    server.poll(desk)
                for message in peer.received():
                    assert len(message) == 3
                    assert message[2]["number"] == got[index]
                    got[index] += 1
    settle(server, desk)
    assert got == [pieces] * 45
    held = [connection.held for connection in server._clients.connections.values()]
    assert max(held) < 400_000  # max_unsent, and one run of pieces more
    for peer in silent:
        late, lost = 0, 0
        last = -1
        while last < pieces - 1:
            assert readable(peer.socket) or readable(server, 20)
            server.poll(desk)
            for message in peer.received():
                told = message[3]["lost"] if len(message) == 4 else 0
                assert message[2]["number"] == last + 1 + told
                last = message[2]["number"]
                late, lost = late + 1, lost + told
        assert late + lost == pieces
        assert lost > 1000
    for peer in peers:
        peer.close()
    settle(server, desk)
    assert desk.topic.subscribers == 0
