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
    """Raises at the `at`-th bytecode of the guard and of the functions here that are traced."""

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


def use(guard):
    """As methods do that may raise."""
    with guard:
        return len("inside")


def use_and_fail(guard):
    """As methods do that raise."""
    try:
        with guard:
            raise ValueError("inside")
    except ValueError:
        pass


def use_twice(guard):
    """As `Pump.poll` does, which comes in again while an exception goes through it."""
    try:
        with guard:
            len("inside")
    finally:
        with guard:
            len("inside again")


def use_with_notes(guard):
    """As when the garbage collector had left something to do."""
    guard.leave_note(lambda: None)
    with guard:
        guard.leave_note(lambda: None)


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


def is_open(guard):
    """Whether it opens to a function of this thread; then it must keep others out, and be left."""
    with guard:
        with pytest.raises(UsageError, match="in use already"):
            use(guard)
        assert [type(error) for error in in_thread(lambda: use(guard))] == [UsageError]
    assert not guard._inside
    assert not guard.notes
    return True


USES = [use, use_and_fail, use_twice, use_with_notes]


@pytest.mark.parametrize("function", USES)
def test_interrupted_at_every_bytecode(function):
    at = 0
    while True:
        at += 1
        guard, strike = ThreadGuard(), Strike(at)
        strike.during(function, guard)
        assert is_open(guard), at
        if not strike.has_struck:
            break
    assert at > 20, "the trace function sees bytecodes"


@pytest.mark.parametrize("function", USES)
def test_another_thread_comes_after_an_interruption(function):
    at = 0
    while True:
        at += 1
        guard, strike = ThreadGuard(), Strike(at)
        strike.during(function, guard)
        assert in_thread(lambda guard=guard: use(guard)) == []
        assert not guard._inside
        if not strike.has_struck:
            break


def test_interrupted_twice_at_every_two_bytecodes():
    first = 0
    while True:
        first += 1
        second = 0
        while True:
            second += 1
            guard, one, two = ThreadGuard(), Strike(first), Strike(second)
            one.during(use, guard)
            two.during(use, guard)
            assert is_open(guard), (first, second)
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
    guard = ThreadGuard()

    def come_in(function):
        with guard:
            function()

    assert second_at_once(come_in, monkeypatch, module, "_is_running") == [UsageError]
    use(guard)
    assert not guard._inside


def test_frame_that_has_gone_is_let_go():
    """Of what was interrupted nothing is kept once somebody was inside again."""
    guard = ThreadGuard()
    at = 0
    while not guard._inside:
        at += 1
        guard = ThreadGuard()
        Strike(at).during(use, guard)
    use(guard)
    assert not guard._inside


def test_shut():
    guard = ThreadGuard()
    guard.shut("closed")
    guard.shut("closed again")
    guard.leave_note(pytest.fail)
    for _ in range(2):
        with pytest.raises(UsageError, match=r"closed$"):
            use(guard)
    assert guard.is_shut
    assert not guard._inside


def test_notes_are_followed_by_who_comes_in_and_by_who_leaves():
    guard, done = ThreadGuard(), []
    guard.leave_note(lambda: done.append("in"))

    def function():
        with guard:
            assert done == ["in"]
            guard.leave_note(lambda: done.append("out"))
            assert done == ["in"]

    function()
    assert done == ["in", "out"]


def test_note_that_is_interrupted_is_followed_again():
    guard, done = ThreadGuard(), []

    def note():
        done.append(None)
        if len(done) == 1:
            raise KeyboardInterrupt

    guard.leave_note(note)
    with pytest.raises(KeyboardInterrupt):
        use(guard)
    use(guard)
    use(guard)
    assert len(done) == 2


def test_note_for_which_the_kernel_has_no_room():
    guard = ThreadGuard()
    tried = []

    def note():
        tried.append(None)
        raise OSError

    guard.leave_note(note)
    use(guard)
    use(guard)
    assert len(tried) == 1


def is_guarded(node):
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


def test_no_generator_is_guarded():
    """Its frame does not end when it is left, and to look at it would close it."""
    openers = [
        function
        for path in Path(ipcpoll.__file__).parent.rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and is_guarded(function)
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
