"""The hub: a poller, a wake-up and a timer as one descriptor."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time

import pytest
from harness import readable

from ipcpoll._system.hub import NO_DESCRIPTOR, Hub
from ipcpoll._system.poller import READ


@pytest.fixture
def now():
    return [100.0]


@pytest.fixture
def hub(now):
    hub = Hub(lambda: now[0])
    yield hub
    hub.close()


def test_silent_until_something_happens(hub):
    assert not readable(hub)
    assert hub.poll() == []
    assert fcntl.fcntl(hub.fileno(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_tells_of_the_wake_up(hub):
    hub.wakeup.wake()
    assert readable(hub)
    assert hub.poll() == [(hub.wake_fd, READ)]
    hub.wakeup.seen()
    assert not readable(hub)


def test_tells_of_what_is_registered(hub):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        hub.poller.register(ours.fileno(), READ)
        assert not readable(hub)
        theirs.send(b"x")
        assert hub.poll() == [(ours.fileno(), READ)]


def test_tells_of_a_deadline(hub):
    done = []
    hub.deadlines.add(time.monotonic(), lambda: done.append(1))
    assert readable(hub, 10)
    [(fd, mask)] = hub.poll()
    assert fd not in (hub.wake_fd, NO_DESCRIPTOR)
    assert mask == READ
    hub.deadlines.run_due(time.monotonic())
    assert done == [1]
    assert not readable(hub)


def test_without_a_timer_a_deadline_is_polled_for(hub, now, monkeypatch):
    def none():
        raise OSError(errno.EMFILE, "no descriptor left")

    with monkeypatch.context() as patch:
        patch.setattr("ipcpoll._system.timers.Timer", none)
        hub.deadlines.add(101.0, lambda: None)
        assert hub.deadlines.by_hand
    assert hub.poll_by_hand() == []
    now[0] = 101.0
    assert hub.poll_by_hand() == [(NO_DESCRIPTOR, READ)]
    assert hub.poll() == [], "only by hand"


def test_close_frees_every_descriptor_and_may_come_twice():
    before = set(os.listdir("/proc/self/fd"))
    hub = Hub()
    hub.deadlines.add(time.monotonic() + 1000, lambda: None)
    assert len(set(os.listdir("/proc/self/fd")) - before) == 3
    hub.close()
    hub.close()
    assert set(os.listdir("/proc/self/fd")) == before
    assert hub.fileno() == -1
    assert hub.deadlines.next() is None


@pytest.mark.parametrize("what", ["make_poller", "Wakeup"])
def test_that_can_not_be_made_leaves_nothing_open(what, monkeypatch):
    def none():
        raise OSError(errno.EMFILE, "no descriptor left")

    before = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(f"ipcpoll._system.hub.{what}", none)
    with pytest.raises(OSError, match="no descriptor left"):
        Hub()
    assert set(os.listdir("/proc/self/fd")) == before
