"""What is ready, in one call: both pollers, and which of them is taken."""

from __future__ import annotations

import io
import selectors
import socket

import pytest

from ipcpoll import poller as pollers
from ipcpoll.poller import HANGUP, READ, WRITE, EpollPoller, SelectorPoller, has_hung_up


@pytest.fixture(params=["epoll", "selector"])
def poller(request):
    """Both; the portable one on the selector that this platform has."""
    pollers_by_name = {
        "epoll": EpollPoller,
        "selector": lambda: SelectorPoller(selectors.EpollSelector()),
    }
    made = pollers_by_name[request.param]()
    yield made
    made.close()


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_nothing_is_ready(poller, pair):
    poller.register(pair[0].fileno(), READ)
    assert poller.poll() == []


def test_reading_and_writing(poller, pair):
    ours, theirs = pair
    fd = ours.fileno()
    poller.register(fd, READ)
    theirs.send(b"x")
    assert poller.poll() == [(fd, READ)]
    poller.modify(fd, READ | WRITE)
    assert poller.poll() == [(fd, READ | WRITE)]
    poller.modify(fd, WRITE)
    assert poller.poll() == [(fd, WRITE)]
    poller.unregister(fd)
    assert poller.poll() == []


def test_mask_of_nothing(poller, pair):
    ours, theirs = pair
    fd = ours.fileno()
    theirs.send(b"x")
    poller.register(fd, 0)
    assert poller.poll() == []
    poller.modify(fd, READ)
    assert poller.poll() == [(fd, READ)]
    poller.modify(fd, 0)
    assert poller.poll() == []
    poller.unregister(fd)


def test_half_close_is_no_hang_up(poller, pair):
    ours, theirs = pair
    poller.register(ours.fileno(), READ)
    theirs.shutdown(socket.SHUT_WR)
    [(_, mask)] = poller.poll()
    assert mask & READ
    assert not mask & HANGUP
    assert not has_hung_up(ours.fileno())


def test_hang_up_is_told(poller, pair):
    ours, theirs = pair
    poller.register(ours.fileno(), READ)
    theirs.close()
    [(_, mask)] = poller.poll()
    assert mask & HANGUP
    assert has_hung_up(ours.fileno())


def test_hang_up_is_told_for_nothing_by_epoll(pair):
    """The registration for the hang-up alone, which `selectors` refuses."""
    ours, theirs = pair
    poller = EpollPoller()
    poller.register(ours.fileno(), 0)
    assert poller.poll() == []
    theirs.close()
    [(_, mask)] = poller.poll()
    assert mask & HANGUP
    poller.close()


def test_the_descriptor_is_readable_when_something_is_ready(poller, pair):
    import select

    ours, theirs = pair
    poller.register(ours.fileno(), READ)
    assert select.select([poller.fileno()], [], [], 0)[0] == []
    theirs.send(b"x")
    assert select.select([poller.fileno()], [], [], 0)[0] == [poller.fileno()]


def test_platform_without_a_poller_is_told(monkeypatch):
    monkeypatch.setattr(pollers, "_epoll", None)
    monkeypatch.setattr(pollers, "_kqueue_selector", None)
    with pytest.raises(io.UnsupportedOperation, match="ipcpoll needs epoll or kqueue"):
        pollers.make_poller()


def test_platform_with_kqueue_takes_its_selector(monkeypatch):
    monkeypatch.setattr(pollers, "_epoll", None)
    monkeypatch.setattr(pollers, "_kqueue_selector", selectors.EpollSelector)
    poller = pollers.make_poller()
    assert isinstance(poller, SelectorPoller)
    poller.close()
