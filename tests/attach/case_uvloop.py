"""The conformance suite in uvloop, which asyncio's adapter serves too."""

from __future__ import annotations

import uvloop
from case_asyncio import AsyncioConformance


class TestUvloop(AsyncioConformance):
    def new_loop(self):
        return uvloop.new_event_loop()
