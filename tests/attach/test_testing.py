"""`ipcpoll.testing.FakePollable`: a pollable whose every turn is the test's own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from harness import readable

from ipcpoll import Attachment, Pollable
from ipcpoll.testing import FakePollable


@pytest.fixture
def fake() -> Iterator[FakePollable]:
    fake = FakePollable()
    yield fake
    fake.close()


def test_it_is_a_pollable(fake: FakePollable) -> None:
    pollable: Pollable = fake
    assert pollable.fileno() >= 0
    assert not pollable.pending
    assert not readable(fake)


def test_poll_is_remembered(fake: FakePollable) -> None:
    assert fake.poll("ctx") == 1
    assert fake.poll("other", max_seconds=0.5) == 1
    assert fake.polls == [("ctx", None), ("other", 0.5)]


def test_readable_for_as_many_polls_as_it_was_told(fake: FakePollable) -> None:
    """By level, as a server's."""
    fake.ready(3)
    for _ in range(3):
        assert readable(fake)
        assert fake.pending
        fake.poll(None)
    assert not readable(fake)
    assert not fake.pending
    fake.poll(None)  # more often than needed
    assert not readable(fake)


def test_ready_while_it_is_ready(fake: FakePollable) -> None:
    fake.ready()
    fake.ready(2)
    assert fake.work == 3
    for _ in range(3):
        assert readable(fake)
        fake.poll(None)
    assert not readable(fake)


def test_error_comes_out_once(fake: FakePollable) -> None:
    """The poll has done its work nevertheless."""
    fake.error = error = ZeroDivisionError()
    fake.ready()
    with pytest.raises(ZeroDivisionError) as caught:
        fake.poll(None)
    assert caught.value is error
    assert not readable(fake)
    assert fake.poll(None) == 1


def test_on_poll_runs_inside(fake: FakePollable) -> None:
    seen: list[int] = []
    fake.on_poll = lambda: seen.append(len(fake.polls))
    fake.poll(None)
    assert seen == [1]


class Noted(Attachment):
    """Watched by nobody; notes what it is told, and whether the descriptor is open then."""

    def __init__(self, pollable: Pollable) -> None:
        self.told: list[str] = []
        super().__init__(pollable, None, None)

    def _loop_id(self) -> object:
        return self  # each in a loop of its own

    def _watch(self) -> None:
        self.told.append("watch")

    def _unwatch(self) -> None:
        os.fstat(self._fd)
        self.told.append("unwatch")


def test_close_detaches_first(fake: FakePollable) -> None:
    attachments = [Noted(fake), Noted(fake)]
    assert fake.attachments == set(attachments)
    fd = fake.fileno()
    fake.close()
    assert [attachment.told for attachment in attachments] == [["watch", "unwatch"]] * 2
    assert fake.attachments == set()
    assert fake.fileno() == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_nothing_is_unwatched_after_a_resume_that_failed(fake: FakePollable) -> None:
    """The loop was closed: it watches nothing that could be taken out."""

    class Refused(Noted):
        refused = False

        def _watch(self) -> None:
            if self.refused:
                raise RuntimeError("the loop is closed")
            super()._watch()

    attachment = Refused(fake)
    attachment.pause()
    attachment.refused = True
    with pytest.raises(RuntimeError, match="closed"):
        attachment.resume()
    attachment.pause()
    attachment.detach()
    assert attachment.told == ["watch", "unwatch"]
    assert not attachment.attached


def test_close_twice_and_inside_a_poll(fake: FakePollable) -> None:
    attachment = Noted(fake)
    fake.on_poll = fake.close
    fake.ready(2)
    fake.poll(None)
    fake.close()
    assert not attachment.attached


def test_fakes_have_descriptors_of_their_own(fake: FakePollable) -> None:
    other = FakePollable()
    other.ready()
    assert not readable(fake)
    assert readable(other)
    other.close()
