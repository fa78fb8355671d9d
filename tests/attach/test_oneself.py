"""Calls to the server of one's own thread fail at once, and only if no other thread can answer.

Callbacks of a loop are a case of the conformance suite (`tells_callbacks`).
"""

from __future__ import annotations

import asyncio
import errno
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from harness import PATIENCE, ROOT, Blob, Do, Echo, Host, readable, run_python

from ipcpoll import (
    Client,
    Limits,
    NotPolled,
    Server,
    UsageError,
    send,
    serve_or_send,
)
from ipcpoll._attach import oneself
from ipcpoll.adapters import asyncio_loop, select_loop

SOON = PATIENCE / 4


@dataclass
class Count:
    """Gives pieces."""

    to: int

    def process(self, ctx: Host) -> Iterator[int]:
        yield from range(self.to)


@dataclass
class DoLater:
    """Does what the test says in a step of a generator."""

    def process(self, ctx: Host) -> Generator[int, None, str]:
        yield 1
        assert ctx.do is not None
        return str(ctx.do())


COMMANDS = [Echo, Do, Blob, Count, DoLater]


@pytest.fixture
def server(path: str) -> Iterator[Server[Host]]:
    with Server(path, COMMANDS) as server:
        yield server


@pytest.fixture
def another_thread() -> Iterator[None]:
    """Let there be one that has nothing to do with it."""
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    yield
    over.set()
    thread.join()


@pytest.fixture
def only_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries of other tests keep idle threads for a while."""
    monkeypatch.setattr(oneself, "is_only_thread", lambda: True)


def told(call: Callable[[], Any]) -> str:
    """Call, and return what was told at once."""
    began = time.monotonic()
    with pytest.raises(UsageError) as caught:
        call()
    assert time.monotonic() - began < SOON, "it has waited"
    return str(caught.value)


def served_meanwhile(server: Server[Host], host: Host, client: Callable[[], Any]) -> None:
    """Serve on this thread until a client in another one has ended; it must not fail."""
    problems: list[BaseException] = []

    def run() -> None:
        try:
            client()
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    end = time.monotonic() + PATIENCE
    while thread.is_alive() and time.monotonic() < end:
        if readable(server, 0.01):
            server.poll(host)
    thread.join(0)
    if problems:
        raise problems[0]


def pieces(client: Client) -> list[int]:
    """Read a stream to its end, and close it: refused, it would be collected at any moment."""
    with client.stream(Count(2)) as stream:
        return list(stream)


def asks(client: Client, path: str) -> dict[str, Callable[[], Any]]:
    """Return the ways to wait for an answer."""
    return {
        "send": lambda: send(Echo(1), path, timeout=PATIENCE),
        "call": lambda: client.call(Echo(1)),
        "call without a time limit": lambda: client.call(Echo(1), timeout=None),
        "request": lambda: client.request("Echo", {"value": 1}),
        "map": lambda: list(client.map([Echo(1), Echo(2)])),
        "result": lambda: client.submit(Echo(1)).result(),
        "exception": lambda: client.submit(Echo(1)).exception(),
        "stream": lambda: pieces(client),
        "each": lambda: client.stream(Count(2)).each(print).result(),
        "serve_or_send": lambda: serve_or_send(path, COMMANDS, Echo(1), timeout=PATIENCE),
    }


WAYS = list(asks(None, ""))  # type: ignore[arg-type]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("connected", [False, True])
def test_in_a_command(server, path, way, connected):
    """There are other threads, and none of them may poll now."""
    host, sentences = Host(), []
    with Client(path, timeout=PATIENCE) as client:
        if connected:
            served_meanwhile(server, host, lambda: client.call(Echo(0)))
        host.do = lambda: sentences.append(told(asks(client, path)[way]))
        served_meanwhile(server, host, lambda: send(Do(), path, timeout=PATIENCE))
        [sentence] = sentences
        assert "it is inside poll() now, in a command" in sentence
        assert f"(pid {os.getpid()}, {path})" in sentence
        served_meanwhile(server, host, lambda: client.call(Echo(3)))  # it is as good as before
    assert host.log[-1] == 3


def test_in_a_step_of_a_generator(server, path):
    host = Host(do=lambda: told(lambda: send(Echo(1), path)))
    answers = []
    served_meanwhile(server, host, lambda: answers.append(send(DoLater(), path, timeout=PATIENCE)))
    assert "would wait for itself" in answers[0]
    assert host.log == []


@pytest.mark.usefixtures("only_thread")
def test_nothing_was_sent(server, path):
    """What was refused is not run later."""
    host = Host()
    with Client(path, timeout=PATIENCE) as client:
        server.poll(host)
        sentence = told(lambda: client.call(Echo(1)))
        assert "nothing was sent" in sentence
        client.submit(Echo(2))
        sentence = told(lambda: list(client.map([Echo(3)])))
        assert "nothing was sent" in sentence
        while readable(server):
            server.poll(host)
    assert host.log == [2]


def test_notify_needs_no_answer(server, path):
    """The kernel has it at once, and it is run in its turn."""
    host = Host()
    with Client(path, timeout=PATIENCE) as client:
        host.do = lambda: client.notify(Echo(5))
        served_meanwhile(server, host, lambda: send(Do(), path, timeout=PATIENCE))
        while readable(server):
            server.poll(host)
    assert host.log == [("do", 0), 5]


@pytest.mark.usefixtures("only_thread")
def test_notify_that_finds_no_room(server, path):
    """It would have to wait until this thread reads."""
    with Client(path, timeout=PATIENCE) as client:
        server.poll(Host())

        def fill() -> None:
            while True:
                client.notify(Echo(6))

        assert "it found no room to be sent" in told(fill)


@pytest.mark.usefixtures("only_thread")
def test_backlog_is_full(path):
    """A notification has to wait here as well."""
    with Server(path, COMMANDS, limits=Limits(backlog=1)) as server, ExitStack() as waiting:
        server.poll(Host())
        result = 0
        while result == 0:
            sock = waiting.enter_context(socket.socket(socket.AF_UNIX))
            sock.setblocking(False)
            result = sock.connect_ex(path)
        assert result == errno.EAGAIN
        with Client(path, timeout=PATIENCE) as client:
            assert "its backlog is full" in told(lambda: client.notify(Echo(7)))
            future = client.submit(Echo(7))
            assert "would wait for itself" in told(future.result)


@pytest.mark.usefixtures("only_thread")
def test_submitted_before_and_answered_by_polls(server, path):
    """Refusing to wait leaves the future as it was; a loop finishes it."""
    host = Host()
    with Client(path, timeout=PATIENCE) as client:
        server.poll(host)
        future = client.submit(Echo(8))
        assert "is answered when it polls" in told(future.result)
        while not future.done():
            server.poll(host)
            client.poll()
        assert future.result() == 8


def test_answer_that_is_there_already(server, path):
    """Nobody has to wait for it."""
    host = Host()
    with Client(path, timeout=PATIENCE) as client:
        server.poll(host)
        future, stream = client.submit(Echo(9)), client.stream(Count(2))
        while readable(server):
            server.poll(host)
        assert future.result() == 9
        assert list(stream) == [0, 1]


def test_no_time_to_wait(server, path):
    """A limit of 0 is no waiting; it is what it was."""
    server.poll(Host())
    with Client(path, timeout=0) as client:
        with pytest.raises(NotPolled):
            client.call(Echo(1))
        with pytest.raises(TimeoutError):
            client.submit(Echo(1), timeout=5).result(0)


HAND_MADE = """
import sys, threading
from harness import *
from ipcpoll import Server, UsageError, send
with Server(sys.argv[1], COMMANDS) as server:
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    over.set()
    thread.join()
    server.poll(Host())
    try:
        send(Echo(1), server.address, timeout=None)
    except UsageError as error:
        print("this process has no other thread" in str(error))
"""


def test_hand_made_loop_of_the_only_thread(path):
    """A game that asks itself between two polls, though nobody has called it yet."""
    with run_python(HAND_MADE, path) as process:
        said, problem = process.communicate(timeout=PATIENCE)
    assert (said, problem) == ("True\n", "")


@pytest.mark.usefixtures("only_thread")
def test_through_a_link(server, path, directory):
    link = Path(directory, "link")
    link.symlink_to(path)
    server.poll(Host())
    assert "would wait for itself" in told(lambda: send(Echo(1), link))


@pytest.mark.usefixtures("only_thread")
def test_server_that_was_made_anew(server, path):
    """`rebind`: the same server, another file."""
    server.poll(Host())
    os.unlink(path)
    server.rebind()
    assert "would wait for itself" in told(lambda: send(Echo(1), path))


ASKS_BEFORE_IT_POLLS = """
import sys
from harness import COMMANDS, Echo
from ipcpoll import Server, UsageError, send
with Server(sys.argv[1], COMMANDS) as server:
    try:
        send(Echo(1), server.address, timeout=None)
    except UsageError as error:
        print("this process has no other thread" in str(error))
"""


def test_only_thread_that_has_not_polled_yet(path):
    """The first lines of a newcomer: a server, and a call to it."""
    with run_python(ASKS_BEFORE_IT_POLLS, path) as process:
        said, problem = process.communicate(timeout=PATIENCE)
    assert (said, problem) == ("True\n", "")


# ---------------------------------------------------------------------------------------------
# Never a false alarm


@pytest.mark.usefixtures("another_thread")
def test_nobody_has_polled_yet(server, path):
    """Whoever will is not known."""
    with pytest.raises(NotPolled) as caught:
        send(Echo(1), path, timeout=0.02)
    assert "itself" not in str(caught.value)


def replaced(path: str, server: Server[Host]) -> None:
    """Take the path of a server away, with its lock, and let another process serve it."""
    os.unlink(path)
    os.unlink(f"{path}.lock")
    assert not server.reachable()


ANOTHER_PROGRAM = f"""
import sys
sys.path.append({str(ROOT / "tests" / "attach")!r})
from harness import Host
from test_oneself import COMMANDS
from ipcpoll import Server
from ipcpoll.adapters import select_loop
with Server(sys.argv[1], COMMANDS) as server:
    print("serves", flush=True)
    select_loop.run(server, Host())
"""


@pytest.mark.usefixtures("only_thread")
def test_path_that_leads_to_another_program(server, path):
    """A cleaner took the socket away, and another program came."""
    server.poll(Host())
    replaced(path, server)
    with run_python(ANOTHER_PROGRAM, path) as process:
        try:
            assert process.stdout.readline() == "serves\n"
            for way in WAYS:
                with Client(path, timeout=PATIENCE) as client:
                    asks(client, path)[way]()
        finally:
            process.kill()


@pytest.mark.usefixtures("only_thread")
def test_link_to_a_path_that_leads_to_another_program(server, path, directory):
    link = Path(directory, "link")
    link.symlink_to(path)
    server.poll(Host())
    replaced(path, server)
    assert oneself.served_behind(str(link)) is None
    with Server(path, COMMANDS) as other:
        assert oneself.served_behind(str(link)) is other._served


@pytest.mark.usefixtures("another_thread")
def test_other_threads_might_poll(server, path):
    """By hand, and nothing proves that they don't. Behind the time limit there is a hint."""
    server.poll(Host())
    with pytest.raises(NotPolled) as caught:
        send(Echo(1), path, timeout=0.02)
    assert str(caught.value) == (
        f"pid {os.getpid()} is alive and has not read Echo within 0.02 s; it was cancelled and "
        "will most likely not run; this thread polled that server last, so it may have waited for "
        f"itself ({path})"
    )


@pytest.mark.parametrize("before", ["made", "polled", "served"])
def test_handed_to_another_thread(server, path, before):
    """This one made it, polled it, served with it; now another does."""
    host = Host()
    if before == "polled":
        server.poll(host)
    if before == "served":
        with Client(path) as client:
            client.notify(Echo(0))
            server.poll(host)
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            if readable(server, 0.01):
                server.poll(host)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        for way in asks(Client(path), path):
            if way != "each":
                with Client(path, timeout=PATIENCE) as client:
                    asks(client, path)[way]()
    finally:
        over.set()
        thread.join()


def test_loop_that_another_thread_runs(server, path):
    """Attached here, while it did not run."""
    loop = asyncio.new_event_loop()
    asyncio_loop.attach(server, Host(), loop)
    loop.run_until_complete(asyncio.sleep(0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        for number in range(3):
            assert send(Echo(number), path, timeout=PATIENCE) == number
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.close()


def test_thread_of_a_loop(server, path):
    """As most programs with a loop ask what blocks."""

    async def main() -> None:
        asyncio_loop.attach(server, Host())
        loop = asyncio.get_running_loop()
        assert await asyncio.to_thread(send, Echo(1), path, timeout=PATIENCE) == 1
        assert await loop.run_in_executor(None, send, Echo(2), path) == 2
        async with asyncio_loop.AsyncClient(path) as client:
            assert await client.call(Echo(3)) == 3
        with pytest.raises(UsageError, match="inside a callback of the loop"):
            send(Echo(4), path)

    asyncio.run(main())


@pytest.mark.usefixtures("another_thread")
def test_paused_and_polled_by_another(server, path):
    """The loop of this thread stands still; another polls by hand."""

    async def main() -> None:
        with asyncio_loop.attach(server, Host()) as attachment:
            attachment.pause()
            with pytest.raises(NotPolled):
                send(Echo(1), path, timeout=0.02)
            attachment.resume()
            with pytest.raises(UsageError, match="would wait for itself"):
                send(Echo(1), path, timeout=PATIENCE)

    asyncio.run(main())


@pytest.mark.usefixtures("another_thread")
def test_in_two_loops_one_of_which_may_run(server, path):
    async def main() -> None:
        with selectors.DefaultSelector() as selector, asyncio_loop.attach(server, Host()):
            select_loop.attach(server, Host(), selector)
            with pytest.raises(NotPolled):
                send(Echo(1), path, timeout=0.02)

    asyncio.run(main())


CHILD = """
import os, sys
from harness import *
from ipcpoll import Server, send, UsageError
path = sys.argv[1]
host = Host()
server = Server(path, COMMANDS)
server.poll(host)
child = os.fork()
if not child:
    assert send(Echo(4), path, timeout=PATIENCE) == 4
    own = Server(path + "-child", COMMANDS)
    own.poll(host)
    try:
        send(Echo(5), own.address)
    except UsageError as error:
        assert "would wait for itself" in str(error)
        own.close()
        os._exit(7)
    os._exit(1)
while not host.log:
    if readable(server, PATIENCE):
        server.poll(host)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
server.close()
print("done")
"""


def test_forked_child(path):
    """It asks its parent like any other process; its own server is its own."""
    with run_python(CHILD, path) as process:
        said, problem = process.communicate(timeout=PATIENCE)
    assert (said, problem) == ("done\n", "")


@pytest.mark.usefixtures("another_thread")
def test_closed_server_is_forgotten(server, path):
    """What was known of it is not said of the next server there."""
    server.poll(Host())
    server.close()
    assert oneself.served_at(path) is None
    with Server(path, COMMANDS) as other:
        assert oneself.served_at(path) is other._served
        with pytest.raises(NotPolled) as caught:
            send(Echo(1), path, timeout=0.02)
        assert "itself" not in str(caught.value)
