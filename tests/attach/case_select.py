"""The conformance suite in a loop that is made by hand: each selector of the standard library."""

from __future__ import annotations

import heapq
import itertools
import selectors
import time

from clients import ClientCases

from ipcpoll.adapters import select_loop


class SelectorLoop:
    """The simplest loop there is: a selector, timers, and callbacks in ``key.data``."""

    def __init__(self, selector):
        self.selector = selector
        self.timers = []
        self.order = itertools.count()
        self.running = False

    def call_later(self, seconds, function):
        heapq.heappush(self.timers, (time.monotonic() + seconds, next(self.order), function))

    def run(self):
        self.running = True
        while self.running:
            self.turn()

    def turn(self):
        now = time.monotonic()
        wait = max(0.0, self.timers[0][0] - now) if self.timers else None
        for key, _ in self.selector.select(wait):
            key.data()
        while self.timers and self.timers[0][0] <= time.monotonic():
            heapq.heappop(self.timers)[2]()


class SelectConformance(ClientCases):
    selector = selectors.EpollSelector
    can_nest = True
    reports_errors = False

    def open_loop(self):
        self.loop = SelectorLoop(self.selector())

    def close_loop(self):
        self.loop.selector.close()

    def run_loop(self):
        self.loop.run()

    def stop_loop(self):
        self.loop.running = False

    def call_later(self, seconds, function):
        self.loop.call_later(seconds, function)

    def attach(self, pollable, ctx, *, max_seconds=None):
        return select_loop.attach(pollable, ctx, self.loop.selector, max_seconds=max_seconds)

    def run_nested(self, seconds):
        end = time.monotonic() + seconds
        self.loop.call_later(seconds, lambda: None)
        while time.monotonic() < end:
            self.loop.turn()


class TestEpoll(SelectConformance):
    pass


class TestPoll(SelectConformance):
    selector = selectors.PollSelector


class TestSelect(SelectConformance):
    selector = selectors.SelectSelector
