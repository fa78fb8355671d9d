"""prompt_toolkit: a prompt that runs on asyncio, with the adapter for that."""

import asyncio

from calc import Add, Stop
from prompt_toolkit import PromptSession

import ipcpoll
from ipcpoll.adapters import asyncio_loop


async def main() -> None:
    session: PromptSession[str] = PromptSession("ask> ")
    with ipcpoll.Server("calc", Add | Stop) as server:
        asyncio_loop.attach(server, lambda: session.app.exit(exception=EOFError))
        try:
            while True:
                print("you said", await session.prompt_async())
        except EOFError:
            print("the end")


asyncio.run(main())
