"""Wake descriptors: woken by any thread, signalled by their owner."""

from __future__ import annotations

import fcntl
import os

import pytest
from harness import readable

from ipcpoll._system.wakeup import Wakeup


@pytest.fixture
def wakeup():
    wakeup = Wakeup()
    yield wakeup
    wakeup.close()


def test_wake_until_seen(wakeup):
    assert not readable(wakeup)
    wakeup.wake()
    wakeup.wake()
    assert readable(wakeup)
    wakeup.seen()
    assert not readable(wakeup)


def test_signal_until_silenced(wakeup):
    wakeup.signal()
    wakeup.signal()
    assert readable(wakeup)
    wakeup.silence()
    assert not readable(wakeup)
    wakeup.silence()


def test_silence_keeps_a_wake_that_came_in_between(wakeup):
    wakeup.signal()
    wakeup.wake()
    wakeup.silence()
    assert readable(wakeup)
    wakeup.seen()
    assert not readable(wakeup)


def test_owner_knows_whether_another_thread_has_woken_it(wakeup):
    assert not wakeup.is_only_signalled
    wakeup.signal()
    assert wakeup.is_only_signalled
    wakeup.wake()
    assert not wakeup.is_only_signalled
    wakeup.seen()
    assert not wakeup.is_only_signalled
    wakeup.wake()
    wakeup.signal()
    assert not wakeup.is_only_signalled


def test_more_wakes_than_the_counter_holds(wakeup):
    os.write(wakeup.fileno(), (2**64 - 2).to_bytes(8, "little"))
    wakeup.wake()
    assert readable(wakeup)
    wakeup.seen()
    assert not readable(wakeup)


def test_closed_on_exec_and_closed_twice(wakeup):
    assert fcntl.fcntl(wakeup.fileno(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    wakeup.close()
    wakeup.close()
    assert wakeup.fileno() == -1
    wakeup.wake()


def test_seen_without_anything_set_does_not_block(wakeup):
    wakeup.seen()


def test_descriptor_is_not_closed_under_a_thread_that_wakes(wakeup, monkeypatch):
    """Its number could be a stranger's file by then. Whoever comes out last closes it."""
    fd = wakeup.fileno()
    wrote = []

    def write(number, data):
        wakeup.close()  # what the owner does in the meantime
        os.fstat(number)
        wrote.append(os.write(number, data))

    monkeypatch.setattr("ipcpoll._system.wakeup._write", write)
    wakeup.wake()
    assert wrote == [8]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    wakeup.close()
    wakeup.wake()
    assert wrote == [8]


def test_wake_that_is_interrupted_leaves_nothing_open(wakeup, monkeypatch):
    fd = wakeup.fileno()

    def interrupted(number, data):
        raise KeyboardInterrupt

    monkeypatch.setattr("ipcpoll._system.wakeup._write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        wakeup.wake()
    wakeup.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_the_pipe_of_platforms_without_eventfd(monkeypatch):
    monkeypatch.delattr(os, "eventfd")
    wakeup = Wakeup()
    assert not readable(wakeup)
    for _ in range(70_000):  # more than a pipe holds
        wakeup._set()
    assert readable(wakeup)
    wakeup.seen()
    wakeup.seen()
    assert not readable(wakeup)
    descriptors = list(wakeup._open)
    wakeup.close()
    for fd in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    assert len(descriptors) == 2
