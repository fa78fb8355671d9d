"""adapters/select_loop.py: `run` for programs without a loop, `attach` where a selector is."""

from __future__ import annotations

import fcntl
import os
import selectors
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from harness import Host, Peer, above_1023

from ipcpoll import Attachment, Server, UsageError
from ipcpoll.adapters import select_loop
from ipcpoll.testing import Echo, FakePollable

MakeServer = Callable[..., Server[Any]]


@pytest.fixture
def fake() -> Iterator[FakePollable]:
    fake = FakePollable()
    yield fake
    fake.close()


# ---------------------------------------------------------------------------------------------
# run


def test_run_until(fake: FakePollable) -> None:
    """`until` is asked before the first wait, and after each poll."""
    fake.ready(5)
    asked: list[int] = []

    def until() -> bool:
        asked.append(len(fake.polls))
        return len(fake.polls) == 3

    select_loop.run(fake, None, until=until)
    assert asked == [0, 1, 2, 3]
    assert fake.attachments == set()


def test_run_that_is_over_before_it_begins(fake: FakePollable) -> None:
    select_loop.run(fake, None, until=lambda: True)
    assert fake.polls == []


def test_run_passes_context_and_budget(fake: FakePollable) -> None:
    fake.ready()
    select_loop.run(fake, "ctx", until=lambda: bool(fake.polls), max_seconds=0.25)
    assert fake.polls == [("ctx", 0.25)]


def test_wake_lets_until_be_asked(server: Server[Any]) -> None:
    """From another thread, and although nobody calls."""
    stop = threading.Event()
    asked = threading.Event()

    def until() -> bool:
        asked.set()
        return stop.is_set()

    def end() -> None:
        asked.wait()
        stop.set()
        server.wake()

    thread = threading.Thread(target=end)
    thread.start()
    select_loop.run(server, Host(), until=until)
    thread.join()
    assert not server.closed
    assert server.attachments == set()


def test_run_ends_when_the_server_is_closed_in_a_command(server: Server[Any], peer: Peer) -> None:
    peer.call(1, "Do", value=7)
    select_loop.run(server, Host(do=server.close))
    assert [message[:2] for message in peer.received()] == [[1, 0], [None, 1]]


def test_run_ends_when_it_is_detached_in_a_command(server: Server[Any], peer: Peer) -> None:
    def detach() -> None:
        for attachment in list(server.attachments):
            attachment.detach()

    peer.call(1, "Do")
    select_loop.run(server, Host(do=detach))
    assert not server.closed


def test_run_of_what_is_closed(fake: FakePollable) -> None:
    fake.close()
    with pytest.raises(UsageError, match="is closed, there is nothing to attach"):
        select_loop.run(fake, None)


def test_run_inside_run(server: Server[Any], connect: Callable[[Server[Any]], Peer]) -> None:
    """A command that waits for another client, as a modal dialog does."""
    asks, answers = connect(server), connect(server)
    host = Host()

    def dialog() -> None:
        answers.call(1, "Echo", value=5)
        select_loop.run(server, host, until=lambda: 5 in host.log)

    host.do = dialog
    asks.call(1, "Do", value=9)
    select_loop.run(server, host, until=lambda: 5 in host.log)
    assert host.log == [("do", 9), 5]
    assert asks.received() == [[1, 0, 9]]


def test_keyboard_interrupt_while_it_waits(fake: FakePollable) -> None:
    """It comes out, and leaves nothing behind."""

    def interrupt() -> bool:
        threading.Timer(0, os.kill, [os.getpid(), signal.SIGINT]).start()
        return False

    with pytest.raises(KeyboardInterrupt):
        select_loop.run(fake, None, until=interrupt)
    assert fake.attachments == set()


def test_keyboard_interrupt_in_a_command(server: Server[Any], peer: Peer) -> None:
    """The server can be run again."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    peer.call(1, "Do")
    host = Host(do=interrupt)
    with pytest.raises(KeyboardInterrupt):
        select_loop.run(server, host)
    with ExitStack() as stack:
        other = Peer(server)
        stack.callback(other.close)
        other.call(1, "Echo", value=3)
        select_loop.run(server, host, until=lambda: 3 in host.log)
        assert other.received() == [[1, 0, 3]]


def test_exception_of_poll_comes_out_of_run(fake: FakePollable) -> None:
    fake.error = ZeroDivisionError("the program's")
    fake.ready()
    with pytest.raises(ZeroDivisionError):
        select_loop.run(fake, None)
    assert fake.attachments == set()


# ---------------------------------------------------------------------------------------------
# attach

SELECTORS = [selectors.SelectSelector, selectors.PollSelector, selectors.EpollSelector]


@pytest.fixture(params=SELECTORS)
def selector(request: pytest.FixtureRequest) -> Iterator[selectors.BaseSelector]:
    with request.param() as selector:
        yield selector


def ready(selector: selectors.BaseSelector) -> list[Any]:
    return [key.data for key, _ in selector.select(0)]


def test_the_attachment_is_its_keys_data(
    fake: FakePollable, selector: selectors.BaseSelector
) -> None:
    attachment = select_loop.attach(fake, "ctx", selector, max_seconds=0.5)
    assert isinstance(attachment, Attachment)
    assert ready(selector) == []
    fake.ready()
    assert ready(selector) == [attachment]
    attachment(selectors.EVENT_READ)  # whatever a loop passes is ignored
    assert fake.polls == [("ctx", 0.5)]
    assert ready(selector) == []


def test_exception_of_poll_comes_out_of_the_call(
    fake: FakePollable, selector: selectors.BaseSelector
) -> None:
    attachment = select_loop.attach(fake, None, selector)
    fake.error = error = ZeroDivisionError()
    fake.ready(2)
    with pytest.raises(ZeroDivisionError) as caught:
        attachment()
    assert caught.value is error
    assert ready(selector) == [attachment]


def test_attached_twice_to_one_selector(
    fake: FakePollable, selector: selectors.BaseSelector
) -> None:
    """The selector refuses, and the first attachment stays."""
    attachment = select_loop.attach(fake, None, selector)
    with pytest.raises(UsageError, match="attached to this loop already"):
        select_loop.attach(fake, None, selector)
    assert fake.attachments == {attachment}
    fake.ready()
    assert ready(selector) == [attachment]


def test_attached_to_two_selectors(fake: FakePollable) -> None:
    with selectors.EpollSelector() as one, selectors.PollSelector() as two:
        attachments = {select_loop.attach(fake, None, selector) for selector in (one, two)}
        assert fake.attachments == attachments
        fake.close()
        assert not one.get_map()
        assert not two.get_map()


def test_stale_key_of_a_look(selector: selectors.BaseSelector) -> None:
    """Two were ready in one look, and the first one's command closes the second."""
    one, two = FakePollable(), FakePollable()
    attachments = {fake: select_loop.attach(fake, None, selector) for fake in (one, two)}
    one.ready()
    two.ready()
    one.on_poll, two.on_poll = two.close, one.close
    for data in ready(selector):
        data()
    assert sorted([len(one.polls), len(two.polls)]) == [0, 1]
    assert sorted(attachment.attached for attachment in attachments.values()) == [False, True]
    one.close()
    two.close()


def test_key_that_the_program_has_unregistered(
    fake: FakePollable, selector: selectors.BaseSelector
) -> None:
    """`detach` does not mind, and leaves alone what is registered there now."""
    attachment = select_loop.attach(fake, None, selector)
    selector.unregister(fake.fileno())
    attachment.pause()
    attachment.resume()
    selector.unregister(fake.fileno())
    selector.register(fake.fileno(), selectors.EVENT_READ, "the program's")
    attachment.detach()
    assert [key.data for key in selector.get_map().values()] == ["the program's"]


def test_selector_that_is_closed_first(
    fake: FakePollable, selector: selectors.BaseSelector
) -> None:
    attachment = select_loop.attach(fake, None, selector)
    selector.close()
    attachment.pause()
    attachment.detach()
    assert fake.attachments == set()


def test_resume_when_the_selector_is_closed(fake: FakePollable) -> None:
    """It says so, and stays paused."""
    selector = selectors.EpollSelector()
    attachment = select_loop.attach(fake, None, selector)
    attachment.pause()
    selector.close()
    for _ in range(2):
        with pytest.raises(ValueError, match="closed"):
            attachment.resume()
    attachment.detach()


# ---------------------------------------------------------------------------------------------
# Descriptors that select(2) does not take


@contextmanager
def no_low_descriptor() -> Iterator[None]:
    """Use up the descriptors below 1,024."""
    used: list[int] = []
    try:
        while not used or used[-1] < 1024:
            used.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for fd in used:
            os.close(fd)


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_high_descriptor_has_a_low_copy_while_it_is_watched() -> None:
    before = open_descriptors()
    with above_1023(FakePollable) as fake, selectors.SelectSelector() as selector:
        attachment = select_loop.attach(fake, None, selector)
        for _ in range(3):
            [key] = selector.get_map().values()
            assert key.fd < 1024
            assert fcntl.fcntl(key.fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
            fake.ready()
            assert ready(selector) == [attachment]
            attachment()
            assert ready(selector) == []
            attachment.pause()
            assert not selector.get_map()
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(key.fd)
            attachment.resume()
        fake.close()
        assert not selector.get_map()
    assert open_descriptors() == before


def test_low_copy_is_closed_in_a_forked_child(directory: str) -> None:
    """And the parent's goes on."""
    address = f"{directory}/s"
    with (
        above_1023(lambda: Server(address, [Echo])) as server,
        selectors.SelectSelector() as selector,
    ):
        attachment = select_loop.attach(server, None, selector)
        [copy] = selector.get_map()
        pid = os.fork()
        if not pid:
            os._exit(is_open(copy) or attachment.attached)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert is_open(copy)
        server.wake()
        assert ready(selector) == [attachment]


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_high_descriptor_and_no_low_one_is_free() -> None:
    before = open_descriptors()
    with above_1023(FakePollable) as fake, selectors.SelectSelector() as selector:
        with (
            no_low_descriptor(),
            pytest.raises(OSError, match="takes no descriptor from 1024 on, and no lower one"),
        ):
            select_loop.attach(fake, None, selector)
        assert fake.attachments == set()
        attachment = select_loop.attach(fake, None, selector)  # now there is one
        attachment.pause()
        with no_low_descriptor(), pytest.raises(OSError, match="no lower one"):
            attachment.resume()
        assert attachment.attached
        attachment.resume()
        assert len(selector.get_map()) == 1
    assert open_descriptors() == before


def test_high_descriptor_and_a_selector_that_refuses() -> None:
    """The low copy is given back."""

    class Refusing(selectors.SelectSelector):
        def register(self, *_: object) -> Any:
            raise RuntimeError("not today")

    before = open_descriptors()
    with above_1023(FakePollable) as fake, Refusing() as selector:
        with pytest.raises(RuntimeError, match="not today"):
            select_loop.attach(fake, None, selector)
        assert fake.attachments == set()
    assert open_descriptors() == before


def test_run_with_a_high_descriptor() -> None:
    with above_1023(FakePollable) as fake:
        fake.ready()
        select_loop.run(fake, None, until=lambda: bool(fake.polls))
