"""A spread sample of what tests/campaign/syscall_faults.py makes completely, and what it has found.

System calls fail once, or for ever, in every scenario; no promise may break. The whole takes some
minutes and is left to `make campaign`.
"""

import errno
import logging
import os

import pytest
import syscall_faults
from faulty_calls import Faults
from harness import COMMANDS, Echo, answers, settle

from ipcpoll import Client, NotPolled, Server
from ipcpoll._address.lockfile import LockFile

ONE_IN = 23  # no divisor of what the plans repeat by, so each sample meets every kind


@pytest.mark.once
def test_a_sample_of_the_system_calls_fails():
    figures = syscall_faults.campaign(3600.0, of=ONE_IN)
    print(figures)
    assert figures["runs"] > 500
    assert figures["runs with a fault"] > 0.8 * figures["runs"]
    assert figures["kinds of system calls"] >= 25


@pytest.fixture
def faults():
    with Faults() as faults:
        yield faults
        faults.on = False


def fail(faults, kind, at, number):
    faults.plan(kind, at, number, for_ever=False)
    faults.on = True


def test_listener_that_can_not_be_watched_leaves_no_spare_open(path, faults):
    """The one registration before it is the wake-up's. A ResourceWarning is an error here."""
    fail(faults, "epoll.register", 2, errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"):
        Server(path, COMMANDS)
    assert not os.path.exists(path)


@pytest.mark.parametrize("address", ["path", "name"])
def test_directory_that_can_not_be_looked_at_is_closed(directory, faults, monkeypatch, address):
    monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
    before = sorted(os.listdir("/proc/self/fd"))
    fail(faults, "fstat", 1, errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        Server(f"{directory}/s" if address == "path" else "a-name", COMMANDS)
    faults.on = False
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("kind", ["recv", "send"])
def test_connection_for_which_there_is_no_memory_is_closed_with_a_line(
    server, peer, faults, caplog, kind
):
    peer.call(1, "Echo", value=1)
    with caplog.at_level(logging.WARNING, "ipcpoll"):
        fail(faults, kind, 1, errno.ENOMEM)
        settle(server)
    assert peer.received() == []
    assert peer.ended
    assert [record.getMessage() for record in caplog.records] == [
        "a client was closed: [Errno 12] Cannot allocate memory"
    ]


def test_connection_that_can_not_be_unwatched_is_closed_all_the_same(
    server, connect, peer, faults, caplog
):
    peer.call(1, "Echo", value=1)
    assert answers(server, peer, 1) == [[1, 0, 1]]
    other = connect(server)
    settle(server)
    other.close()
    fail(faults, "epoll.unregister", 1, errno.ENOMEM)
    settle(server)
    assert server.stats()["clients"] == 1
    assert not caplog.records


def test_hang_up_that_can_not_be_looked_for_is_found_by_the_poller(server, connect, faults):
    gone = connect(server)
    settle(server)
    gone.close()
    faults.plan("poll", 1, errno.ENOMEM, for_ever=True)
    faults.on = True
    settle(server)
    assert server.stats()["clients"] == 0


def test_notification_for_which_there_is_never_room_ends_in_time(server, faults):
    with Client(server.address, timeout=0.05) as client:
        faults.plan("send", 1, errno.EAGAIN, for_ever=True)
        faults.on = True
        with pytest.raises(NotPolled):
            client.notify(Echo(1))


def test_lock_that_can_not_be_closed_does_not_keep_the_directory_open(path, monkeypatch):
    before = sorted(os.listdir("/proc/self/fd"))
    server = Server(path, COMMANDS)
    close = LockFile.close

    def close_and_fail(self):
        close(self)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(LockFile, "close", close_and_fail)
    with pytest.raises(OSError, match="Input/output"):
        server.close()
    assert sorted(os.listdir("/proc/self/fd")) == before
