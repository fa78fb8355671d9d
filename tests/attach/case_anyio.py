"""The conformance suite in anyio, on both of its backends, and the cases of `serve`."""

from __future__ import annotations

from typing import ClassVar

import anyio
from inside import Bites, Inside, Serving

from ipcpoll.adapters import anyio_loop


class Words:
    library = anyio
    adapter = anyio_loop
    open_group = staticmethod(anyio.create_task_group)
    wait_all_tasks_blocked = staticmethod(anyio.wait_all_tasks_blocked)


class OnAsyncio(Words):
    options: ClassVar = {"backend": "asyncio"}


class OnTrio(Words):
    options: ClassVar = {"backend": "trio"}


class TestAnyioOnAsyncio(OnAsyncio, Inside):
    pass


class TestAnyioOnTrio(OnTrio, Inside):
    pass


class TestServeOnAsyncio(OnAsyncio, Serving):
    pass


class TestServeOnTrio(OnTrio, Serving):
    pass


class TestBitesOnAsyncio(Bites):
    suite = TestServeOnAsyncio
    attachment = anyio_loop.AnyioAttachment


class TestBitesOnTrio(Bites):
    suite = TestServeOnTrio
    attachment = anyio_loop.AnyioAttachment
