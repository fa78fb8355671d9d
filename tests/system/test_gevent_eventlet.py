"""gevent and eventlet, which replace parts of the standard library, before ipcpoll or after.

Each case runs in a process of its own: what they patch stays patched. That `poll` never lets
another greenlet run is watched by greenlet's own trace function, which sees every switch.
"""

from __future__ import annotations

import pytest
from harness import finish, full_backlog, run_python
from loops import need

pytestmark = pytest.mark.once

PATCH = {
    "gevent": """
from gevent import monkey
monkey.patch_all()
""",
    "eventlet": """
import warnings
warnings.filterwarnings("ignore", r"\\s*Eventlet is deprecated")
import eventlet
eventlet.monkey_patch()
""",
}

# What each calls the same things.
NAMES = {
    "gevent": """
import gevent
from gevent.socket import wait_read
def spawn(function): return gevent.spawn(function).get
sleep = gevent.sleep
Timeout = gevent.Timeout
""",
    "eventlet": """
from eventlet.hubs import trampoline
def wait_read(fd): trampoline(fd, read=True)
def spawn(function): return eventlet.spawn(function).wait
sleep = eventlet.sleep
Timeout = eventlet.Timeout
""",
}

IMPORT = "import ipcpoll\n"

SERVE = """
import sys
import greenlet
from harness import COMMANDS, Echo, Host, settle

path, calls = sys.argv[1], int(sys.argv[2])
inside = False
switches = []
turns_of_the_other = 0

def see(event, greenlets):
    if inside:
        switches.append((event, greenlets))

def poll(server, host):
    global inside
    inside = True
    try:
        server.poll(host)
    finally:
        inside = False

def go_on():
    global turns_of_the_other
    while True:
        turns_of_the_other += 1
        sleep(0)

def serve():
    host = Host()
    with ipcpoll.Server(path, COMMANDS) as server:
        print("listening", flush=True)
        while len(host.log) < calls:
            wait_read(server.fileno())
            poll(server, host)
            if len(host.log) == 10:
                server.wake()
        # Work that is left, a wake that is seen, and the hang-up of a client.
        while server.stats()["clients"]:
            wait_read(server.fileno())
            poll(server, host)
    return host.log

greenlet.settrace(see)
with Timeout(20):
    spawn(go_on)
    served = spawn(serve)
"""

ASK = """
import sys
from harness import Echo
from ipcpoll import Client
with Client(sys.argv[1], timeout=20) as client:
    print(sum(client.call(Echo(i)) for i in range(int(sys.argv[2]))))
"""

ORDERS = {
    "patched, then imported": lambda library: PATCH[library] + IMPORT,
    "imported, then patched": lambda library: IMPORT + PATCH[library],
}

cases = pytest.mark.parametrize(
    ("library", "order"),
    [(library, order) for library in PATCH for order in ORDERS],
)


@cases
def test_server_in_a_greenlet_serves_a_process(directory, library, order):
    need(library)
    source = ORDERS[order](library) + NAMES[library] + SERVE
    source += (
        "    assert served() == list(range(calls))\n"
        "    assert switches == [], switches\n"
        "    assert turns_of_the_other >= calls\n"
    )
    arguments = (f"{directory}/s", "100")
    server = run_python(source, *arguments)
    client = None
    try:
        if server.stdout.readline() == "listening\n":
            client = run_python(ASK, *arguments)
            assert finish(client) == f"{sum(range(100))}\n"
        finish(server)
    finally:
        for process in (server, client):
            if process is not None and process.poll() is None:
                process.kill()
                process.communicate()
    assert client is not None


@cases
def test_client_lets_other_greenlets_run_while_it_waits(directory, library, order):
    """The server is one of them: nothing would ever be answered otherwise."""
    need(library)
    source = ORDERS[order](library) + NAMES[library] + SERVE
    source += """
    def ask():
        with ipcpoll.Client(path, timeout=20) as client:
            return [client.call(Echo(i)) for i in range(calls)]
    sleep(0)
    assert spawn(ask)() == list(range(calls))
    assert served() == list(range(calls))
    assert switches == [], switches
"""
    finish(run_python(source, f"{directory}/s", "100"))


@cases
def test_full_backlog_holds_nobody_beyond_the_time_limit(directory, library, order):
    need(library)
    source = ORDERS[order](library) + NAMES[library]
    source += """
import sys, time
from harness import Echo
with Timeout(20):
    try:
        ipcpoll.send(Echo(1), sys.argv[1], timeout=0.05)
    except ipcpoll.NotPolled as error:
        print("its backlog is full" in str(error))
    try:
        ipcpoll.Server(sys.argv[1], [Echo])
    except ipcpoll.AlreadyRunning:
        print("alive")
"""
    with full_backlog(f"{directory}/s"):
        assert finish(run_python(source, f"{directory}/s")) == "True\nalive\n"


@cases
def test_wake_from_another_greenlet_ends_a_wait(directory, library, order):
    need(library)
    source = ORDERS[order](library) + NAMES[library]
    source += """
import sys
from harness import COMMANDS
with Timeout(20), ipcpoll.Server(sys.argv[1], COMMANDS) as server:
    spawn(server.wake)
    wait_read(server.fileno())
    assert server.poll(None) == 0
"""
    finish(run_python(source, f"{directory}/s"))


def test_nothing_is_imported_for_them():
    source = "import sys, ipcpoll\nprint(sys.modules.keys() & {'gevent', 'eventlet', 'greenlet'})"
    assert finish(run_python(source)) == "set()\n"
