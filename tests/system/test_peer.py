"""Who is at the other end of a socket, whether it is stopped, and what it has not read."""

from __future__ import annotations

import socket
from dataclasses import dataclass

import pytest

from ipcpoll._system import peer
from ipcpoll._system.peer import Credentials

# ---------------------------------------------------------------------------------------------
# What the sentences are made of


def test_name_of_a_process_may_hold_anything(monkeypatch, tmp_path):
    stat = tmp_path / "stat"
    opened = open

    def from_here(file, *arguments):
        return opened(stat if str(file).startswith("/proc/") else file, *arguments)

    monkeypatch.setattr("builtins.open", from_here)
    for state, stopped in [(b"T", True), (b"t", True), (b"S", False), (b"R", False)]:
        stat.write_bytes(b"42 (a) T (b) " + state + b" 1 42")
        assert peer.is_stopped(42) is stopped


@dataclass
class Option:
    """A socket that answers getsockopt as another system would."""

    data: bytes
    pid: int | None

    def getsockopt(self, level, option, size=None):
        assert level == 0
        if size is None:
            assert option == 2
            if self.pid is None:
                raise OSError(42, "Protocol not available")
            return self.pid
        return self.data


@pytest.mark.parametrize(("pid", "shown"), [(4711, 4711), (None, 0)], ids=["macOS", "FreeBSD"])
def test_credentials_where_there_is_no_so_peercred(monkeypatch, pid, shown):
    """The structure as the manuals give it; never run on such a system."""
    monkeypatch.setattr(peer, "_SO_PEERCRED", None)
    groups = b"".join(group.to_bytes(4, "little") for group in [20, 12, *[0] * 14])
    data = bytes(4) + (501).to_bytes(4, "little") + b"\x02\x00\x00\x00" + groups
    assert peer.credentials(Option(data, pid)) == Credentials(shown, 501, 20)


def test_unread_is_not_known_everywhere(monkeypatch):
    one, two = socket.socketpair()
    with one, two:
        one.send(b"abc")
        monkeypatch.setattr("sys.platform", "darwin")
        assert peer.has_unread(one) is None


def test_unread_to_the_last_byte():
    one, two = socket.socketpair()
    with one, two:
        assert peer.has_unread(one) is False
        one.send(b"abc")
        assert peer.has_unread(one) is True
        two.recv(2)
        assert peer.has_unread(one) is True
        two.recv(1)
        assert peer.has_unread(one) is False
