"""What is ready, in one call: both pollers, and which of them is taken."""

from __future__ import annotations

import contextlib
import io
import select
import selectors
import socket
import sys
import types

import pytest

from ipcpoll._system import poller as pollers
from ipcpoll._system.poller import HANGUP, READ, WRITE, EpollPoller, SelectorPoller, has_hung_up


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
    ours, theirs = pair
    poller.register(ours.fileno(), READ)
    assert select.select([poller.fileno()], [], [], 0)[0] == []
    theirs.send(b"x")
    assert select.select([poller.fileno()], [], [], 0)[0] == [poller.fileno()]


def test_platform_without_a_poller_is_told(monkeypatch):
    monkeypatch.setattr(pollers, "_epoll", None)
    with pytest.raises(io.UnsupportedOperation, match="and this Python has neither"):
        pollers.make_poller()


class Kqueue(selectors.EpollSelector):
    """Stands for the selector that macOS and the BSDs have."""


def test_platform_with_kqueue_takes_its_selector(monkeypatch):
    monkeypatch.setattr(pollers, "_epoll", None)
    monkeypatch.setattr(select, "kqueue", select.epoll, raising=False)
    monkeypatch.setattr(selectors, "KqueueSelector", Kqueue, raising=False)
    poller = pollers.make_poller()
    assert isinstance(poller, SelectorPoller)
    assert isinstance(poller._selector, Kqueue)
    poller.close()


# ---------------------------------------------------------------------------------------------
# The standard library is patched. tests/system/test_gevent_eventlet.py lets the real ones do it.


def patch_select(monkeypatch):
    """Do what gevent and eventlet do to the module."""
    monkeypatch.delattr(select, "epoll")
    monkeypatch.setattr(select, "poll", lambda: pytest.fail("a greenlet's poll"))


def test_select_that_is_patched_is_passed_by(monkeypatch, pair):
    patch_select(monkeypatch)
    unpatched = pollers._unpatched_select()
    assert unpatched is not select
    assert unpatched is not pollers._unpatched_select(), "nobody has patched this one either"
    with contextlib.closing(unpatched.epoll()) as epoll:
        epoll.register(pair[0].fileno(), READ)
        assert epoll.poll(0) == []
        pair[1].send(b"x")
        assert epoll.poll(0) == [(pair[0].fileno(), READ)]
    assert not has_hung_up(pair[0].fileno())


def test_select_that_is_nobody_s_stays_in_use():
    assert pollers._unpatched_select() is select


def test_selectors_that_are_patched_are_passed_by(monkeypatch, pair):
    """kqueue is looked up by its selector when it is made, so the selector is a private one."""
    patch_select(monkeypatch)
    monkeypatch.delattr(selectors, "EpollSelector")
    module = pollers._private_copy("selectors", {"select": pollers._unpatched_select()})
    poller = SelectorPoller(module.EpollSelector())
    poller.register(pair[0].fileno(), READ)
    pair[1].send(b"x")
    assert poller.poll() == [(pair[0].fileno(), READ)]
    poller.close()


def test_kqueue_that_is_patched_out_is_found_again(monkeypatch):
    kernel = types.SimpleNamespace(kqueue=None)
    module = types.SimpleNamespace(KqueueSelector=Kqueue)
    monkeypatch.setattr(pollers, "_epoll", None)
    monkeypatch.setattr(pollers, "_unpatched_select", lambda: kernel)

    def copy(name, given):
        assert (name, given) == ("selectors", {"select": kernel})
        return module

    monkeypatch.setattr(pollers, "_private_copy", copy)
    poller = pollers.make_poller()
    assert isinstance(poller._selector, Kqueue)
    poller.close()


def test_who_patched_first_and_for_good_is_told_what_to_do(monkeypatch):
    patch_select(monkeypatch)
    monkeypatch.setattr(pollers, "_epoll", None)
    monkeypatch.setattr(sys, "meta_path", [])
    with pytest.raises(io.UnsupportedOperation, match="import ipcpoll before you patch"):
        pollers.make_poller()
