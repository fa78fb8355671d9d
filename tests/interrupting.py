"""What the tests of interruptions share: commands that are answered late, and who interrupts.

A signal handler can raise between any two steps of `poll`. `Interrupter` raises at one of them,
chosen by its number: a line, or a byte code instruction.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from concurrent.futures import Future
from dataclasses import dataclass

from harness import Host

import ipcpoll
from ipcpoll import Subscription, Topic, Turn

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


class Interrupter:
    """Raises at the `at`-th step of the library that is executed while it is on.

    A step is a line, or with `opcodes` an instruction of CPython's. At 0 it only counts.
    """

    def __init__(self, at, interrupt, *, opcodes=False):
        self.at = at
        self.interrupt = interrupt
        self.event = "opcode" if opcodes else "line"
        self.steps = 0
        self.where = None

    def __call__(self, frame, event, _):
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            return None
        if event == "call" and self.event == "opcode":
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
        if event == self.event:
            self.steps += 1
            if self.steps == self.at:
                self.where = f"{frame.f_code.co_filename}:{frame.f_lineno} at {frame.f_lasti}"
                sys.settrace(None)
                raise self.interrupt
        return self

    def poll(self, pollable, host):
        """Poll with the trace function on; return whether the interruption came out."""
        before = sys.gettrace()
        sys.settrace(self)
        try:
            pollable.poll(host)
        except self.interrupt:
            return True
        finally:
            sys.settrace(before)
        return False
