"""gevent: a greenlet waits for the server. A command runs in it, and may not wait for another."""

import gevent.event
from calc import Add, Stop

import ipcpoll  # before or after monkey.patch_all(): it takes the epoll that the patch hides


def serve() -> None:
    hub = gevent.get_hub()
    watcher = hub.loop.io(server.fileno(), 1)  # 1: for reading
    try:
        while True:
            hub.wait(watcher)
            server.poll(stopping.set)
    finally:
        watcher.close()  # before the server closes its descriptor: libev ends the process


stopping = gevent.event.Event()
with ipcpoll.Server("calc", Add | Stop) as server:
    servant = gevent.spawn(serve)
    stopping.wait()
    servant.kill()
