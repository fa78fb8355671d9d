"""What a server does while an interruption strikes, and what must hold after it.

Each scenario polls through an `Interrupter`, which lets an exception strike at one step. It is
played by `run_interrupted`, which has a witness connected before and lets a new client come after.
"""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import Future

from harness import COMMANDS as BASIC
from harness import Echo, Host, Peer, call, encode, readable, serve_until, settle
from interrupting import LATE_COMMANDS, Steps

from ipcpoll import Client, Limits, PeerGone, Server, Topic


class Told(Peer):
    """A client that knows what is right: the answer to a call is its id, and comes once."""

    def __init__(self, server):
        super().__init__(server)
        self.messages = []

    def listen(self, most=1 << 24):
        """Take in what has come."""
        self.messages += self.received(most)

    def __exit__(self, *error):
        if error == (None, None, None):
            self.listen()
            whole = [message for message in self.messages if message[1] != 2]
            ids = [message[0] for message in whole if message[0] is not None]
            assert len(set(ids)) == len(ids), f"answered twice: {whole}"
            for call_id, kind, answer in whole:
                if kind == 0 and type(answer) is int:
                    assert answer == call_id, f"the answer of another: {whole}"
        super().__exit__(*error)


COMMANDS = [*BASIC, *LATE_COMMANDS]


def one_call(server, host, interrupter):
    """A new client, a call, an answer, the client goes."""
    with Told(server) as peer:
        peer.call(1, "Echo", value=1)
        interrupter.poll(server, host)
    interrupter.poll(server, host)


def pipelined_and_half(server, host, interrupter):
    """Several frames with one turn a poll, a bad frame, half a frame, two clients."""
    with Told(server) as first, Told(server) as second:
        first.send(*(call(i, "Echo", value=i) for i in range(3)), b"\xd8\x18\x41\x00")
        second.send(call(1, "Refuse", code="c"), call(2, "Echo", value=2)[:-1])
        for _ in range(3):
            interrupter.poll(server, host)
            server.poll(host, max_commands=1)


def back_pressure(server, host, interrupter):
    """A large answer that leaves in pieces."""
    with Told(server) as peer:
        peer.send(call(1, "Blob", size=600_000), call(2, "Blob", size=10))
        interrupter.poll(server, host)
        peer.listen(200_000)
        interrupter.poll(server, host)


def nested(server, host, interrupter):
    """A command that polls, and another client inside."""
    with Told(server) as first, Told(server) as second:
        first.call(1, "Do", value=1)
        server.poll(host, max_commands=0)

        def inside():
            second.call(2, "Echo", value=2)
            if interrupter.poll(server, host):
                raise interrupter.interrupt

        host.do = inside
        try:
            server.poll(host)
        except interrupter.interrupt:
            pass


def late_answers(server, host, interrupter):
    """A future, pieces, a topic, a notification in steps; one ends, one is cancelled, all go."""
    with Told(server) as peer, Told(server) as other:
        other.send(call(None, "Steps"))
        peer.send(call(1, "Ask"), call(3, "Steps"), call(2, "Watch"), call(4, "Ask"))
        interrupter.poll(server, host)
        for thing in list(host.log):
            if isinstance(thing, Future):
                thing.set_result(1)
                break
        for thing in list(host.log):
            if isinstance(thing, Topic):
                thing.publish(8)
        interrupter.poll(server, host)
        peer.socket.setblocking(True)
        try:
            peer.send(encode([4]))
        except BrokenPipeError:
            pass  # it was interrupted in the midst of its work
        peer.socket.setblocking(False)
        interrupter.poll(server, host)
    interrupter.poll(server, host)


def hang_up(server, host, interrupter):
    """A client goes with its answers unread and unsent, another after half a frame."""
    with Told(server) as other:
        with Told(server) as peer:
            peer.send(call(1, "Blob", size=600_000), call(2, "Echo", value=2))
            other.send(call(3, "Echo", value=3)[:-2])
            interrupter.poll(server, host)
        interrupter.poll(server, host)
    interrupter.poll(server, host)


def accept_storm(server, host, interrupter):
    """More clients than there is room for; some speak, some are silent and have to go."""
    peers = [Told(server) for _ in range(5)]
    for call_id in (3, 4):
        peers[call_id].call(call_id, "Echo", value=call_id)
    interrupter.poll(server, host)
    interrupter.poll(server, host)
    for peer in peers:
        with peer:
            pass
    interrupter.poll(server, host)
    settle(server, host)  # those that have gone make room for who comes next


def close_in_a_command(server, host, interrupter):
    """Answer, then stop; others wait, have late calls, or wait to be taken in."""
    host.do = server.close
    with Told(server) as first, Told(server) as second:
        second.send(call(1, "Ask"), call(3, "Steps"))
        server.poll(host)
        first.send(call(1, "Do", value=1), call(2, "Echo", value=2))
        second.call(4, "Echo", value=4)
        with Told(server):
            interrupter.poll(server, host)
            server.close()
    assert server.stats()["in_flight"] == 0
    assert not os.path.exists(server.address)


def deadlines(server, host, interrupter):
    """Time limits: one that is over, one that is not, one of a call that is answered before."""
    with Told(server) as peer:
        peer.send(
            encode([1, "Ask", {}, {"timeout": 0.0005}]),
            encode([2, "Ask", {}, {"timeout": 60}]),
            encode([3, "Steps", {}, {"timeout": 60}]),
        )
        interrupter.poll(server, host)
        readable(server, 0.05)
        interrupter.poll(server, host)
    interrupter.poll(server, host)


def client_poll(server, host, interrupter):
    """Not the server but a client is interrupted: submitted calls, and a stream."""
    with Client(server.address, timeout=60) as client:
        client.fileno()
        futures = [client.submit(Echo(-10 - i)) for i in range(3)]
        done, pieces = [], []
        for future in futures:
            future.add_done_callback(done.append)
        stream = client.stream(Steps())
        end = stream.each(pieces.append)
        settle(server, host)
        interrupter.poll(client, host)
        interrupter.poll(client, host)

        def is_over():
            client.poll()
            return all(future.done() for future in futures) and end.done()

        serve_until(server, is_over, host)
        for i, future in enumerate(futures):
            assert isinstance(future.exception(), PeerGone) or future.result() == -10 - i
        # What is just being handed over may not arrive: `set_result` of the standard library loses
        # its callbacks when it is interrupted, and a piece is handed over at most once.
        assert len(done) == len(set(done)) >= 2, "told twice, or two were lost"
        assert pieces in ([1, 2], [1], [2], []), "each piece once, in order"
        assert end.exception() is not None or len(pieces) >= 1


BASIC_SCENARIOS = (one_call, pipelined_and_half, back_pressure, nested, late_answers)
LIMITS = {accept_storm: Limits(max_clients=4, poll_seconds=10.0)}
SCENARIOS = (
    one_call,
    pipelined_and_half,
    back_pressure,
    hang_up,
    accept_storm,
    nested,
    late_answers,
    deadlines,
    close_in_a_command,
    client_poll,
)


def run_interrupted(path, scenario, interrupter):
    """Play a scenario on a new server, and check that nothing but what was touched has suffered."""
    host = Host(do=lambda: None)
    limits = LIMITS.get(scenario, Limits(poll_seconds=10.0))
    with Server(path, COMMANDS, limits=limits) as server, Peer(server) as witness:
        witness.call(1, "Echo", value=-1)
        server.poll(host)
        assert witness.received() == [[1, 0, -1]]
        scenario(server, host, interrupter)
        ran = Counter(value for value in host.log if type(value) is int)
        assert max(ran.values()) == 1, f"run twice: {ran}"
        if server.closed:
            return
        with Peer(server) as fresh:
            fresh.send(call(2, "Echo", value=-2), call(3, "Echo", value=-3))
            got = []
            serve_until(server, lambda: got.extend(fresh.received()) or len(got) == 2, host)
            assert got == [[2, 0, -2], [3, 0, -3]]
            # The connection in hand may have been closed; this one was touched by nobody, or it
            # is served as before.
            if not witness.received() and not witness.ended:
                witness.call(2, "Echo", value=-4)
                late = []
                serve_until(
                    server,
                    lambda: late.extend(witness.received()) or late or witness.ended,
                    host,
                )
                assert late == [[2, 0, -4]]
            settle(server, host)
        settle(server, host)
        assert not readable(server)
        # Not one is forgotten: each was answered, cancelled, or ended with its client.
        assert server.stats()["in_flight"] == 0
        # One that was interrupted before it was the server's is nobody's: it has no callback.
        futures = [thing for thing in host.log if isinstance(thing, Future)]
        assert all(future.done() or not future._done_callbacks for future in futures)
        assert not any(thing.subscribers for thing in host.log if isinstance(thing, Topic))
        assert server.stats()["clients"] == (0 if witness.ended else 1)
