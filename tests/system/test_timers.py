"""The timer descriptor, and many deadlines on it."""

from __future__ import annotations

import fcntl
import os
import time

import pytest
from harness import readable

from ipcpoll._system.timers import Deadlines, LazyTimer, Timer


def test_timer_that_is_due_and_disarmed():
    timer = Timer()
    assert fcntl.fcntl(timer.fileno(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    assert not readable(timer)
    timer.arm(time.monotonic() - 1)
    assert readable(timer, 10)
    timer.arm(None)
    assert not readable(timer)
    timer.arm(0.0)
    assert readable(timer, 10), "0 is a moment that has passed, and not 'never'"
    timer.arm(time.monotonic() + 3600)
    assert not readable(timer)
    timer.close()
    timer.close()
    assert timer.fileno() == -1


def test_timer_is_never_early():
    timer = Timer()
    when = time.monotonic() + 0.02
    timer.arm(when)
    assert readable(timer, 10)
    assert time.monotonic() >= when
    timer.close()


def test_timer_that_can_not_be_armed_says_why():
    timer = Timer()
    fd = timer.fileno()
    timer.close()
    timer._fd = fd
    with pytest.raises(OSError, match="Bad file descriptor"):
        timer.arm(1.0)
    timer._fd = -1


@pytest.fixture
def deadlines():
    watched = []
    timer = LazyTimer(watched.append)
    deadlines = Deadlines(timer)
    deadlines.watched = watched
    yield deadlines
    timer.close()


def test_deadlines_are_done_in_order(deadlines):
    done = []
    for when in (3.0, 1.0, 2.0, 1.0):
        deadlines.add(when, lambda when=when: done.append(when))
    assert deadlines.next() == 1.0
    deadlines.run_due(0.5)
    assert done == []
    deadlines.run_due(2.0)
    assert done == [1.0, 1.0, 2.0]
    assert deadlines.next() == 3.0
    deadlines.run_due(9.0)
    assert deadlines.next() is None


def test_timer_is_made_with_the_first_deadline_and_only_once(deadlines):
    assert deadlines.watched == []
    deadlines.add(time.monotonic() + 1000, lambda: None)
    deadlines.add(time.monotonic() + 500, lambda: None)
    assert len(deadlines.watched) == 1


def test_cancelled_deadline_is_not_done(deadlines):
    done = []
    now = time.monotonic()
    first = deadlines.add(now, lambda: done.append(1))
    deadlines.add(now + 1000, lambda: done.append(2))
    assert readable(deadlines.watched[0], 10)
    first.cancel()
    first.cancel()
    deadlines.settle()
    assert not readable(deadlines.watched[0])
    deadlines.run_due(now + 1)
    assert done == []
    assert deadlines.next() == now + 1000


def test_cancelled_deadlines_are_not_kept_behind_one_that_waits(deadlines):
    """A client that waits long for one call, and asks others with a time limit, costs no memory."""
    now = time.monotonic()
    deadlines.add(now + 1000, lambda: None)
    kept = [deadlines.add(now + 1500, lambda: None) for _ in range(3)]
    for number in range(1000):
        deadlines.add(now + 2000 + number, lambda: None).cancel()
    assert len(deadlines._heap) <= 64
    done = []
    for deadline in kept:
        deadline.action = lambda: done.append(1)
    deadlines.run_due(now + 9000)
    assert done == [1, 1, 1]
    assert deadlines.next() is None


def test_deadline_that_adds_a_deadline(deadlines):
    done = []

    def again():
        done.append(1)
        if len(done) < 3:
            deadlines.add(0.0, again)

    deadlines.add(0.0, again)
    deadlines.run_due(1.0)
    assert done == [1, 1, 1]
    assert not readable(deadlines.watched[0])


def test_without_a_timer_the_next_moment_is_still_known(deadlines, monkeypatch):
    def none():
        raise AttributeError("no timerfd")

    monkeypatch.setattr("ipcpoll._system.timers.Timer", none)
    assert not deadlines.by_hand
    deadlines.add(5.0, lambda: None)
    deadlines.add(4.0, lambda: None)
    assert deadlines.by_hand
    assert deadlines.next() == 4.0
    deadlines.run_due(9.0)
    assert not deadlines.by_hand


def test_without_a_timer_a_cancelled_deadline_is_polled_for_no_more(deadlines, monkeypatch):
    def none():
        raise OSError("no descriptor")

    monkeypatch.setattr("ipcpoll._system.timers.Timer", none)
    deadline = deadlines.add(time.monotonic(), lambda: None)
    assert deadlines.by_hand
    deadline.cancel()
    deadlines.settle()
    assert not deadlines.by_hand


def test_a_timer_that_comes_later_is_used_from_then_on(deadlines, monkeypatch):
    """There was no descriptor left; then one is free again."""

    def none():
        raise OSError("no descriptor")

    with monkeypatch.context() as patch:
        patch.setattr("ipcpoll._system.timers.Timer", none)
        deadlines.add(time.monotonic(), lambda: None)
        assert deadlines.by_hand
    assert deadlines.watched == []
    deadlines.settle()
    assert not deadlines.by_hand
    assert readable(deadlines.watched[0], 10)


def test_a_timer_that_can_not_be_watched_is_closed(monkeypatch):
    made = []

    def full(fd):
        made.append(fd)
        raise OSError("too many watches")

    timer = LazyTimer(full)
    assert timer.arm(None), "nothing to tell of, and nothing made"
    assert made == []
    assert not timer.arm(time.monotonic())
    [fd] = made
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    timer.close()
