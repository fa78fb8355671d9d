"""What a server, or a client, does while a signal handler polls it or closes it.

Nothing is lost, unlike where a handler raises: each call that was run gets its answer, each
other one an error that says it was not run, nothing is run twice, and the log has nothing
unforeseen.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager

from harness import COMMANDS as BASIC
from harness import Host, Peer, call, encode, readable, settle
from interrupted_clients import submit_and_poll
from interrupting import LATE_COMMANDS, Handler

from ipcpoll import Client, Limits, PeerGone, Server, Topic, UsageError

COMMANDS = [*BASIC, *LATE_COMMANDS]


TIMED = 1000
"""The id of a call whose time may be over before its turn, or not."""


class Over(Exception):
    """The server was closed, so the scenario ends."""


class Play:
    """One run of a scenario: the server, its clients, and what they have asked."""

    def __init__(self, path, handler, limits):
        self.host = Host(do=lambda: None)
        self.server = Server(path, COMMANDS, limits=limits)
        self.handler = handler
        self.stack = ExitStack()
        self.peers = []
        self.asked = Counter()
        self.gone = set()

    def peer(self):
        """Return a new client."""
        peer = self.stack.enter_context(Peer(self.server))
        peer.asked, peer.told = {}, []
        self.peers.append(peer)
        return peer

    def ask(self, peer, name, **fields):
        """Send a call whose id is unique, and the value too where it has one."""
        call_id = 1 + sum(self.asked.values())
        self.asked[name] += 1
        peer.asked[call_id] = name
        if name in ("Echo", "Do"):
            fields["value"] = call_id
        peer.send(call(call_id, name, **fields))
        return call_id

    def leave(self, peer):
        """Let a client go."""
        self.gone.add(peer)
        peer.close()

    def read_all(self):
        """Let the server do what is left, and the clients read all of it, a large answer too."""
        for _ in range(8):
            if not self.server.closed:
                settle(self.server, self.host)
            else:  # one in whose first step the server was closed is still answered
                for future in [thing for thing in self.host.log if isinstance(thing, Future)]:
                    if not future.done():
                        future.set_result(0)
            for peer in self.peers:
                if peer not in self.gone:
                    peer.told += peer.received()

    def poll(self):
        """Poll, and let the handler strike."""
        self.handler.run(lambda: self.server.poll(self.host))
        if self.server.closed:
            raise Over


def one_call(play):
    """A new client, a call; the client goes."""
    peer = play.peer()
    play.ask(peer, "Echo")
    play.poll()
    play.ask(peer, "Echo")
    play.poll()
    play.poll()
    peer.told += peer.received()
    play.leave(peer)
    play.poll()


def several(play):
    """Pipelined calls, a bad frame, half a frame, a refusal, and an answer that does not fit."""
    first, second, third = play.peer(), play.peer(), play.peer()
    for _ in range(3):
        play.ask(first, "Echo")
    first.send(encode([98, "Echo", 5]))
    play.ask(first, "Echo")
    play.ask(second, "Refuse", code="c")
    second.send(call(99, "Echo", value=99)[:-1])
    play.ask(third, "Blob", size=600_000)
    play.poll()
    third.told += third.received()
    play.poll()


def nested(play):
    """A command polls, and another client is served inside."""
    first, second = play.peer(), play.peer()
    play.server.poll(play.host)

    def inside():
        play.host.do = lambda: None
        play.ask(second, "Echo")
        if not play.server.closed:
            play.handler.run(lambda: play.server.poll(play.host))

    play.host.do = inside
    play.ask(first, "Do")
    play.server.poll(play.host)


def late_answers(play):
    """Futures, steps, a topic; one ends, one is cancelled, one has no time left."""
    peer, other = play.peer(), play.peer()
    asked = [play.ask(peer, name) for name in ("Ask", "Steps", "Watch", "Ask")]
    play.ask(other, "Steps")
    other.send(call(None, "Steps"))
    play.poll()
    for thing in list(play.host.log):
        if isinstance(thing, Future) and not thing.done():
            thing.set_result(asked[0])
            break
    for thing in list(play.host.log):
        if isinstance(thing, Topic):
            thing.publish(8)
    play.poll()
    peer.send(encode([asked[3]]))
    play.poll()
    other.asked[TIMED] = "Ask"
    other.send(encode([TIMED, "Ask", {}, {"timeout": 0.0005}]))
    play.poll()
    readable(play.server, 0.05)
    play.poll()


def hang_ups(play):
    """Clients go: with answers unread, with late calls, in the midst of a frame."""
    first, second, third = play.peer(), play.peer(), play.peer()
    play.ask(first, "Blob", size=600_000)
    play.ask(second, "Ask")
    play.ask(second, "Steps")
    third.send(call(99, "Echo", value=99)[:-2])
    play.poll()
    for peer in (first, second, third):
        play.leave(peer)
    fourth = play.peer()  # the number of a descriptor is used again
    play.ask(fourth, "Echo")
    play.poll()
    play.poll()


def full(play):
    """More clients than there is room for: silent ones have to go, one is turned away."""
    peers = [play.peer() for _ in range(6)]
    for peer in peers[3:]:
        play.ask(peer, "Echo")
    play.poll()
    play.poll()


def idle(play):
    """Nothing is to be done."""
    play.poll()


def close_in_a_command(play):
    """Answer, then stop; others have late calls, wait, or wait to be taken in."""
    first, second = play.peer(), play.peer()
    play.ask(second, "Ask")
    play.ask(second, "Steps")
    play.server.poll(play.host, max_commands=2)
    play.host.do = play.server.close
    play.ask(first, "Do")
    play.ask(first, "Echo")
    play.ask(second, "Echo")
    play.peer()
    play.poll()


def close_outside(play):
    """`close` itself is what the handler comes into."""
    first, second = play.peer(), play.peer()
    play.ask(second, "Ask")
    play.ask(second, "Steps")
    play.server.poll(play.host, max_commands=2)
    play.ask(first, "Echo")
    play.ask(second, "Echo")
    play.peer()
    play.handler.run(play.server.close)


SCENARIOS = (
    one_call,
    several,
    nested,
    late_answers,
    hang_ups,
    full,
    idle,
    close_in_a_command,
    close_outside,
)
LIMITS = {full: Limits(max_clients=4, poll_seconds=10.0)}
ACTIONS = ("poll", "close")


def play(path, scenario, action, at):
    """Play a scenario, and let a handler act at one point; return the handler."""
    handler = Handler(at, lambda: act(game, action))
    game = Play(path, handler, LIMITS.get(scenario, Limits(poll_seconds=10.0)))
    with game.stack, game.server, mishaps() as errors:
        game.stack.callback(game.host.log.clear)
        try:
            scenario(game)
        except Over:
            pass
        if handler.where is not None and action == "close":
            assert game.server.closed, "close was forgotten"
        game.read_all()
        assert not errors, errors
        look_at(game, action, scenario)
        game.server.close()
    return handler


def act(game, action):
    """What the handler does."""
    getattr(game.server, action)(*([game.host] if action == "poll" else []))


@contextmanager
def mishaps():
    """Collect what is logged with a traceback: nobody foresaw that."""
    errors = []

    class Collector(logging.Handler):
        def emit(self, record):
            if record.exc_info:
                errors.append(self.format(record))

    logger, handler = logging.getLogger("ipcpoll"), Collector()
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield errors
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates


def look_at(game, action, scenario):
    """Each call was run at most once; it is answered if it was run, and told so if it was not."""
    ran = Counter(
        value[1] if type(value) is tuple else value
        for value in game.host.log
        if type(value) in (int, tuple)
    )
    assert not ran or max(ran.values()) == 1, f"run twice: {ran}"
    for peer in game.peers:
        if peer in game.gone:
            continue
        replies = [message for message in peer.told if message[1] != 2]
        ends = Counter(message[0] for message in replies)
        assert not ends or max(ends.values()) == 1, f"told twice: {replies}"
        by_id = {message[0]: message for message in replies}
        farewell = by_id.get(None)
        cut = peer.ended and farewell is None  # it did not read in time, and the log says so
        if game.server.closed:
            assert peer.ended, "its connection was forgotten"
        elif scenario is not full:
            assert not peer.ended, "a client was lost"
        for call_id, name in peer.asked.items():
            reply = by_id.get(call_id)
            if reply is None:
                unanswered = name in ("Ask", "Watch") and not game.server.closed
                assert farewell or cut or unanswered, f"no word for {name} {call_id}"
                assert call_id not in ran or cut, f"{name} {call_id} was run, and is not answered"
            elif reply[1] == 0:
                if name in ("Echo", "Do"):
                    assert reply[2] == call_id
                    assert call_id in ran
            elif reply[2]["code"] in ("shutting-down", "cancelled") and call_id != TIMED:
                assert reply[2]["data"] == {"began": True}
        if farewell and scenario is not full:
            assert farewell[2]["code"] == "shutting-down"
    if game.server.closed:
        stats = game.server.stats()
        assert stats["in_flight"] == stats["clients"] == 0
        assert not os.path.exists(game.server.address)
        try:
            game.server.poll(game.host)
        except UsageError:
            pass
        else:
            raise AssertionError("a closed server was polled")


def points(path, scenario):
    """Return how many points a scenario has."""
    return play(path, scenario, "poll", 0).steps


# ---------------------------------------------------------------------------------------------
# A client


def play_client(path, scenario, action, at):
    """Play a scenario of `interrupted_clients`, and let a handler act at one point.

    A poll is refused, or it is one more, and nothing else happens. A close ends the client: what
    is asked of it ends, with an answer, with PeerGone, or with UsageError.
    """
    ends = []
    with Client(path, timeout=20) as client:
        handler = Handler(at, getattr(client, action))

        def act(function):
            try:
                return handler.run(function)
            except (UsageError, PeerGone) as error:
                ends.append(error)
            except ValueError:  # of poll(2): the descriptor that is to be watched is -1
                assert client.fileno() == -1
                ends.append(None)

        try:
            scenario(client, act)
        except AssertionError:  # that what was not interrupted can be cancelled
            if not (client.fileno() == -1 and scenario is submit_and_poll):
                raise
        if action == "poll" or handler.where is None:
            assert not ends, ends
        else:
            assert client.fileno() == -1, "close was forgotten"
            assert client._session.connection is None
            pump = client._pump
            assert pump is None or not (pump._sessions or pump.ready)
            assert pump is None or not (pump._polls or pump.own)
    return handler


def points_of_client(path, scenario):
    """Return how many points a scenario has."""
    play_client(path, scenario, "poll", 0)  # what is made once, by the first, is no part of it
    return play_client(path, scenario, "poll", 0).steps
