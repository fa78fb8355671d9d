"""The guard of a client: no interruption at whichever bytecode leaves it held."""

from __future__ import annotations

import ast
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
from harness import PATIENCE, Host, serve_until, settle

import ipcpoll
from ipcpoll import UsageError
from ipcpoll._server import server as server_module
from ipcpoll._system import guard as module
from ipcpoll._system.guard import ThreadGuard

FILES = (module.__file__, __file__)


class Strike:
    """Raises at the `at`-th bytecode of the door and of the functions here that are traced."""

    def __init__(self, at):
        self.at = at
        self.steps = 0

    def __call__(self, frame, event, _):
        if frame.f_code.co_filename not in FILES:
            return None
        if event == "call":
            frame.f_trace = self
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
        elif event == "opcode":
            self.steps += 1
            if self.steps == self.at:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self

    @property
    def has_struck(self):
        return self.at and self.steps >= self.at

    def during(self, function, *arguments):
        """Call it with the trace function on."""
        before = sys.gettrace()
        sys._getframe().f_trace_opcodes = True
        sys.settrace(self)
        try:
            function(*arguments)
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)


def use(door):
    """As methods do that may raise."""
    with door:
        return len("inside")


def use_and_fail(door):
    """As methods do that raise."""
    try:
        with door:
            raise ValueError("inside")
    except ValueError:
        pass


def use_twice(door):
    """As `Pump.poll` does, which comes in again while an exception goes through it."""
    try:
        with door:
            len("inside")
    finally:
        with door:
            len("inside again")


def use_with_notes(door):
    """As when the garbage collector had left something to do."""
    door.leave_note(lambda: None)
    with door:
        door.leave_note(lambda: None)


def in_thread(function):
    """Call it in another thread; return what it raised."""
    raised = []

    def run():
        try:
            function()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised


def is_open(door):
    """Whether it opens to a function of this thread; then it must keep others out, and be left."""
    with door:
        with pytest.raises(UsageError, match="in use already"):
            use(door)
        assert [type(error) for error in in_thread(lambda: use(door))] == [UsageError]
    assert not door._inside
    assert not door.notes
    return True


USES = [use, use_and_fail, use_twice, use_with_notes]


@pytest.mark.parametrize("function", USES)
def test_interrupted_at_every_bytecode(function):
    at = 0
    while True:
        at += 1
        door, strike = ThreadGuard(), Strike(at)
        strike.during(function, door)
        assert is_open(door), at
        if not strike.has_struck:
            break
    assert at > 20, "the trace function sees bytecodes"


@pytest.mark.parametrize("function", USES)
def test_another_thread_comes_after_an_interruption(function):
    at = 0
    while True:
        at += 1
        door, strike = ThreadGuard(), Strike(at)
        strike.during(function, door)
        assert in_thread(lambda door=door: use(door)) == []
        assert not door._inside
        if not strike.has_struck:
            break


def test_interrupted_twice_at_every_two_bytecodes():
    first = 0
    while True:
        first += 1
        second = 0
        while True:
            second += 1
            door, one, two = ThreadGuard(), Strike(first), Strike(second)
            one.during(use, door)
            two.during(use, door)
            assert is_open(door), (first, second)
            if not two.has_struck:
                break
        if not one.has_struck:
            break


class Guest(threading.Thread):
    """One who comes in, and stays until it may leave. Its thread goes on for a while."""

    def __init__(self, come_in):
        super().__init__()
        self.is_in, self.may_leave, self.has_left, self.may_end = (
            threading.Event() for _ in range(4)
        )
        self.come_in = come_in
        self.start()
        assert self.is_in.wait(PATIENCE)

    def run(self):
        self.come_in(self.stay)
        self.has_left.set()
        self.may_end.wait()

    def stay(self):
        self.is_in.set()
        self.may_leave.wait()

    def leave(self):
        self.may_leave.set()
        assert self.has_left.wait(PATIENCE)


def second_at_once(come_in, monkeypatch, place, name):
    """Look who is inside, who leaves just then, and a third comes in; return what was told."""
    guests = [Guest(come_in)]
    real = getattr(place, name)

    def look(*args):
        if len(guests) == 1:
            guests[0].leave()  # it was not interrupted
            guests.append(Guest(come_in))
        return real(*args)

    monkeypatch.setattr(place, name, look)
    told = in_thread(lambda: come_in(int))
    guests[1].leave()
    for guest in guests:
        guest.may_end.set()
        guest.join()
    return [type(error) for error in told]


def test_who_leaves_as_another_looks_leaves_no_second_place(monkeypatch):
    door = ThreadGuard()

    def come_in(function):
        with door:
            function()

    assert second_at_once(come_in, monkeypatch, module, "_is_running") == [UsageError]
    use(door)
    assert not door._inside


def test_frame_that_has_gone_is_let_go():
    """Of what was interrupted nothing is kept once somebody was inside again."""
    door = ThreadGuard()
    at = 0
    while not door._inside:
        at += 1
        door = ThreadGuard()
        Strike(at).during(use, door)
    use(door)
    assert not door._inside


def test_shut():
    door = ThreadGuard()
    door.shut("closed")
    door.shut("closed again")
    door.leave_note(pytest.fail)
    for _ in range(2):
        with pytest.raises(UsageError, match=r"closed$"):
            use(door)
    assert door.is_shut
    assert not door._inside


def test_notes_are_followed_by_who_comes_in_and_by_who_leaves():
    door, done = ThreadGuard(), []
    door.leave_note(lambda: done.append("in"))

    def function():
        with door:
            assert done == ["in"]
            door.leave_note(lambda: done.append("out"))
            assert done == ["in"]

    function()
    assert done == ["in", "out"]


def test_note_that_is_interrupted_is_followed_again():
    door, done = ThreadGuard(), []

    def note():
        done.append(None)
        if len(done) == 1:
            raise KeyboardInterrupt

    door.leave_note(note)
    with pytest.raises(KeyboardInterrupt):
        use(door)
    use(door)
    use(door)
    assert len(done) == 2


def test_note_for_which_the_kernel_has_no_room():
    door = ThreadGuard()
    tried = []

    def note():
        tried.append(None)
        raise OSError

    door.leave_note(note)
    use(door)
    use(door)
    assert len(tried) == 1


def opens_the_door(node):
    return any(
        isinstance(each, ast.With)
        and any(ast.unparse(item.context_expr).endswith("guard") for item in each.items)
        for each in own_nodes(node)
    )


def own_nodes(function):
    """The nodes of a function, without those of functions in it."""
    waiting = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def test_no_generator_opens_the_door():
    """Its frame does not end when it is left, and to look at it would close it."""
    openers = [
        function
        for path in Path(ipcpoll.__file__).parent.rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and opens_the_door(function)
    ]
    assert len(openers) > 8
    for function in openers:
        assert isinstance(function, ast.FunctionDef)
        assert not any(isinstance(node, ast.Yield | ast.YieldFrom) for node in own_nodes(function))


# ---------------------------------------------------------------------------------------------
# The server's own


class StrikeServer(Strike):
    """Strikes in the methods of the server that know who is inside."""

    def __call__(self, frame, event, arg):
        if frame.f_code.co_name not in ("poll", "_poll_outermost", "_poll_inside"):
            return None
        return super().__call__(frame, event, arg)


def was_told(peer):
    """Whether it was answered, or its connection was closed."""
    return peer.received() or peer.ended


def test_server_that_was_interrupted_is_polled_by_another_thread(server, connect, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "FILES", (server_module.__file__,))
    at = 0
    stale = 0
    while True:
        at += 1
        peer = connect(server)
        peer.call(at, "Echo", value=at)
        strike = StrikeServer(at)
        strike.during(server.poll, Host())
        stale += bool(server._inside)
        assert in_thread(lambda: server.poll(Host())) == []
        serve_until(server, partial(was_told, peer))
        peer.close()
        settle(server)
        assert not server._inside
        if not strike.has_struck:
            break
    assert at > 30
    assert stale, "it can be left inside"


def test_who_leaves_a_server_as_another_looks_leaves_no_second_place(server, connect, monkeypatch):
    def come_in(function):
        peer = connect(server)
        peer.call(1, "Do", value=1)
        events = server._ready()  # seen before anybody was inside
        serial = server._round.serial
        server._poll_outermost(events, Host(do=function), None, None, serial)

    assert second_at_once(come_in, monkeypatch, server, "_has_inside") == [UsageError]
    assert not server._inside


def test_server_in_which_a_thread_is_stays_shut_for_others(server, peer):
    raised = []
    peer.call(1, "Do", value=1)
    host = Host(do=lambda: raised.extend(in_thread(lambda: server.poll(Host()))))
    serve_until(server, lambda: raised, host)
    assert [type(error) for error in raised] == [UsageError]
    host.do = lambda: raised.extend(in_thread(server.close))
    peer.call(2, "Do", value=2)
    serve_until(server, lambda: len(raised) == 2, host)
    assert type(raised[1]) is UsageError
    assert not server.closed
