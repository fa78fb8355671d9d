"""Random clients, budgets and limits against a simple model of what must be answered.

Every call of a client that stays is answered exactly once and in order; the descriptor is never
silent while work is left, and falls silent at the end; nobody is forgotten. Each seed is one
story of 300 actions: connect, send whole and cut frames, read little, leave, poll with all kinds of
budgets, poll inside commands. The same seeds run each time.
"""

from __future__ import annotations

import logging
import random

import pytest
from harness import COMMANDS, Host, Peer, call, readable, serve_until, settle

from ipcpoll import Limits, Server
from ipcpoll._wire.framing import frame

ACTIONS = 300


class Story:
    """One server, its clients, and what they are owed."""

    def __init__(self, path, seed):
        self.random = random.Random(seed)
        pick = self.random.choice
        limits = Limits(
            max_frames_waiting=pick([1, 3, 16]),
            read_size=pick([64, 1000, 65536]),
            max_unsent=pick([100, 5000, 262144]),
            max_accepts=pick([1, 3, 64]),
            answers_joined=pick([1, 2, 16]),
            max_nested_polls=pick([1, 2, 8]),
        )
        self.server = Server(path, COMMANDS, limits=limits)
        self.host = Host(do=self.inside)
        self.depth = 0
        self.peers: dict[int, Peer] = {}
        self.made = 0
        self.owed: dict[int, list[str]] = {}  # what each call of a client is, by its id
        self.got: dict[int, list] = {}
        self.unsent: dict[int, bytes] = {}

    def inside(self):
        """What the command `Do` does: it polls, acts, raises, or nothing."""
        chance = self.random.random()
        if chance < 0.5 and self.depth < 6:
            self.depth += 1
            for _ in range(self.random.randrange(3)):
                self.act()
            self.poll([None, 0, 1, 2])
            self.depth -= 1
        elif chance < 0.6:
            raise ValueError("refused by chance")

    def poll(self, commands):
        pick = self.random.choice
        self.server.poll(self.host, max_commands=pick(commands), max_seconds=pick([None, 0]))

    def act(self):
        chance = self.random.random()
        if chance < 0.15 and len(self.peers) < 12:
            self.made += 1
            self.peers[self.made] = Peer(self.server)
            self.owed[self.made], self.got[self.made] = [], []
            self.unsent[self.made] = b""
            return
        if not self.peers:
            return
        who = self.random.choice(list(self.peers))
        if chance < 0.6:
            self.ask(who)
        elif chance < 0.75:
            self.got[who] += self.peers[who].received(self.random.choice([10, 1000, 1 << 20]))
        elif chance < 0.8:
            self.send(who, len(self.unsent[who]))
        elif chance < 0.83:
            self.peers.pop(who).close()

    def ask(self, who):
        """Make some calls, and send them up to some byte."""
        for _ in range(self.random.randrange(1, 6)):
            call_id = len(self.owed[who])
            kind = self.random.choices(["Echo", "Do", "Blob", "bad"], [6, 2, 1, 1])[0]
            self.owed[who].append(kind)
            if kind == "bad":
                self.unsent[who] += frame(b"\x83\x19" + call_id.to_bytes(2, "big") + b"\xff")
            elif kind == "Blob":
                self.unsent[who] += call(
                    call_id, kind, size=self.random.choice([10, 3000, 100_000])
                )
            else:
                self.unsent[who] += call(call_id, kind, value=call_id)
        whole = len(self.unsent[who])
        self.send(who, self.random.choice([whole, self.random.randrange(whole)]))

    def send(self, who, most):
        sent = self.peers[who].send_what_fits(self.unsent[who][:most])
        self.unsent[who] = self.unsent[who][sent:]

    def is_told(self):
        """Send and take in what is left; return whether every client has all its answers."""
        for who, peer in self.peers.items():
            self.send(who, len(self.unsent[who]))
            self.got[who] += peer.received()
        return all(len(self.got[who]) >= len(self.owed[who]) for who in self.peers)


@pytest.mark.parametrize("seed", range(80))
def test_story(directory, seed):
    logging.getLogger("ipcpoll").setLevel(logging.CRITICAL + 1)
    story = Story(f"{directory}/s", seed)
    try:
        for _ in range(ACTIONS):
            story.act()
            if story.random.random() < 0.5:
                story.poll([None, 0, 1, 2, 5])
            assert readable(story.server) or not story.server.pending
        serve_until(story.server, story.is_told, story.host)
        settle(story.server, story.host)
        for who in story.peers:
            assert [answer[0] for answer in story.got[who]] == list(range(len(story.owed[who])))
            for answer, kind in zip(story.got[who], story.owed[who], strict=True):
                if kind == "Echo":
                    assert answer[1:] == [0, answer[0]]
                assert (answer[1] == 1) is (kind == "bad") or kind == "Do"
        assert story.server.stats()["clients"] == len(story.peers)
    finally:
        logging.getLogger("ipcpoll").setLevel(logging.NOTSET)
        story.server.close()
        for peer in story.peers.values():
            peer.close()
