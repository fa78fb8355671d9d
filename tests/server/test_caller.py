"""`caller`: who asks, inside a command."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest
from harness import Host, answers, call, run_python, serve_process, settle

from ipcpoll import Credentials, UsageError, caller


@dataclass
class WhoAsks:
    """Answers who asks; in between it does what the host says."""

    def process(self, ctx: Host) -> list[int]:
        if ctx.do is not None:
            ctx.do()
        return list(caller())


@dataclass
class Fails:
    def process(self, ctx: Host) -> None:
        raise ValueError(str(caller().pid))


@pytest.fixture
def server(make_server):
    return make_server([WhoAsks, Fails])


HERE = [os.getpid(), os.geteuid(), os.getegid()]


def test_caller_is_the_client_s_process(server):
    client = run_python(
        "import os, sys\nfrom dataclasses import dataclass\nfrom ipcpoll import *\n"
        "@dataclass\nclass WhoAsks:\n    def process(self, ctx: object) -> list[int]: ...\n"
        "who = send(WhoAsks(), sys.argv[1], timeout=60)\n"
        "assert who == [os.getpid(), os.geteuid(), os.getegid()], who\nprint(who[0])",
        server.address,
    )
    pid = client.pid
    assert serve_process(server, client).strip() == str(pid)


def test_caller_outside_of_a_command(server, connect):
    with pytest.raises(UsageError, match="only known inside a command"):
        caller()
    peer = connect(server)
    peer.send(call(1, "WhoAsks"), call(2, "Fails"), call(3, "WhoAsks"))
    one, two, three = answers(server, peer, 3)
    assert one == [1, 0, HERE]
    assert str(os.getpid()) in two[2]["message"]
    assert three == [3, 0, HERE]
    with pytest.raises(UsageError):
        caller()


def test_caller_of_each_command_in_nested_polls(server, connect):
    """The inner command has its own; when it has returned, the outer one has its own again."""
    other = run_python(
        "import sys\nfrom harness import *\npeer = Peer(sys.argv[1])\n"
        "peer.call(7, 'WhoAsks')\nprint('sent', flush=True)\nwait_until(lambda: peer.received())",
        server.address,
    )
    said = []
    host = Host()

    def outer():
        said.append(caller().pid)
        host.do = lambda: said.append(caller().pid)
        settle(server, host)
        said.append(caller().pid)

    try:
        assert other.stdout.readline() == "sent\n"
        server.poll(host, max_commands=0)  # the other one's call has the first turn
        peer = connect(server)
        peer.call(1, "WhoAsks")
        host.do = outer
        server.poll(host, max_commands=1)
        assert said == [other.pid, os.getpid(), other.pid]
        assert peer.received() == [[1, 0, HERE]]
    finally:
        other.kill()
        other.communicate()


def test_caller_does_not_outlive_an_interruption(server, connect, monkeypatch):
    """A KeyboardInterrupt right behind the command, before the caller was taken back."""

    def interrupted(token):
        raise KeyboardInterrupt

    peer = connect(server)
    peer.call(1, "WhoAsks")
    monkeypatch.setattr("ipcpoll._server.turns.reset_caller", interrupted)
    with pytest.raises(KeyboardInterrupt):
        server.poll(Host())
    with pytest.raises(UsageError):
        caller()


def test_credentials_have_names():
    assert Credentials(1, 2, 3)._asdict() == {"pid": 1, "uid": 2, "gid": 3}
