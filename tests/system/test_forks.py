"""What a parent made belongs to the parent: who is told of a fork, and how often.

Real forks are in tests/hazards/test_process.py, and with every class that has descriptors.
"""

from __future__ import annotations

import weakref

from ipcpoll._system import forks


def test_child_of_a_fork_is_told(monkeypatch):
    told = []

    class Thing:
        def after_fork(self):
            told.append(self)

    thing = Thing()
    monkeypatch.setattr(forks, "_living", weakref.WeakSet())
    forks.watch(thing)
    forks._tell_all()
    forks._tell_all()
    assert told == [thing]
