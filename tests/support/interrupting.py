"""What the tests of interruptions share: commands that are answered later, and `Interrupter`.

A signal handler can raise between any two steps of `poll`. It raises at one of them,
chosen by its number.
"""

from __future__ import annotations

import dis
import os
import sys
from collections.abc import Generator
from concurrent.futures import Future
from dataclasses import dataclass

from harness import Host

import ipcpoll
from ipcpoll import Subscription, Topic, Turn, UsageError

_PACKAGE = os.path.dirname(ipcpoll.__file__) + os.sep


@dataclass
class Ask:
    """Answered later."""

    def process(self, ctx: Host) -> Future[int]:
        future: Future[int] = Future()
        ctx.log.append(future)
        return future


@dataclass
class Steps:
    """Answered in pieces."""

    def process(self, ctx: Host) -> Generator[int | Turn, None, int]:
        yield 1
        yield Turn()
        yield 2
        return 3


@dataclass
class Watch:
    """Answered as the topic says."""

    def process(self, ctx: Host) -> Subscription[int]:
        ctx.log.append(Topic[int](state=lambda: 7))
        return ctx.log[-1].subscribe()


LATE_COMMANDS = [Ask, Steps, Watch]


# Where CPython asks whether a signal has come (CHECK_EVAL_BREAKER in its ceval.c): after a call of
# a C function, at the beginning of a Python function, and at a loop's jump back. Not after a Python
# function returns: the caller continues at once.
_ASKS = {dis.opmap[name] for name in ("CALL", "CALL_FUNCTION_EX", "JUMP_BACKWARD", "RESUME")}
_ASKS |= {dis.opmap[name] for name in ("CALL_KW",) if name in dis.opmap}


def _instruction(frame):
    return frame.f_code.co_code[frame.f_lasti]


class Interrupter:
    """Raises at the `at`-th step of the library that is executed while it is on.

    A step is a line; with `points`, each point where CPython can deliver a signal, also in what the
    library calls of the standard library. With `file`, only steps in files whose name ends so. At 0
    it only counts.
    """

    def __init__(self, at, interrupt, *, points=False, file=""):
        self.at = at
        self.file = file
        self.interrupt = interrupt
        self.points = points
        self.steps = 0
        self.where = None
        self._before = {}  # the instruction that a frame has executed last
        self._returned = False

    def __call__(self, frame, event, _):
        if event == "call":
            if not frame.f_code.co_filename.startswith(_PACKAGE):
                caller = frame.f_back
                inside = caller is not None and caller.f_trace is not None
                if not (self.points and inside) or "/tests/" in frame.f_code.co_filename:
                    return None
            if self.points:
                frame.f_trace = self  # else CPython 3.13 takes no notice of the next line
                frame.f_trace_opcodes = True
                frame.f_trace_lines = False
                self._returned = False
                # The beginning of a function has no event of its own, and is where most signals
                # are delivered: also in an `__exit__`, before its first step.
                self._before[frame] = _instruction(frame)
        elif event == "return":
            self._before.pop(frame, None)
            self._returned = True
        elif event == ("opcode" if self.points else "line") and self._is_step(frame):
            self.steps += 1
            if self.steps == self.at:
                self.where = f"{frame.f_code.co_filename}:{frame.f_lineno} at {frame.f_lasti}"
                sys.settrace(None)
                self._before.clear()
                self.strike()
        return self

    def strike(self):
        """Do what a signal handler would do here."""
        raise self.interrupt

    def _is_step(self, frame):
        if not self.points:
            return frame.f_code.co_filename.endswith(self.file)
        returned, self._returned = self._returned, False
        before = self._before.get(frame)
        self._before[frame] = _instruction(frame)
        # Where an instruction has no line, CPython 3.11 does not free the frame of what is raised.
        return (
            before in _ASKS
            and not returned
            and frame.f_lineno is not None
            and frame.f_code.co_filename.endswith(self.file)
        )

    def poll(self, pollable, host):
        """Poll with the trace function on; return whether the interruption came out."""
        return self.run(lambda: pollable.poll(host))

    def run(self, function):
        """Call it with the trace function on; return whether the interruption came out."""
        before = sys.gettrace()
        sys._getframe().f_trace_opcodes = self.points  # CPython 3.12 looks once, in `settrace`
        sys.settrace(self)
        try:
            function()
        except self.interrupt:
            return True
        finally:
            sys.settrace(before)
            self._before.clear()
        return False


class _Never(BaseException):
    """Nobody raises it."""


class Handler(Interrupter):
    """Calls a function at the `at`-th point at which CPython can run a signal handler.

    It goes on then, as after a handler that returns. A UsageError of the function is counted.
    """

    def __init__(self, at, act):
        super().__init__(at, _Never, points=True)
        self.act = act
        self.refused = 0

    def strike(self):
        try:
            self.act()
        except UsageError:
            self.refused += 1
