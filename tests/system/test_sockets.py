"""Sockets clear of standard input, output and error (hazard 14), and how much one read takes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from harness import (
    ROOT,
    finish,
    run_python,
)

from ipcpoll._system.sockets import next_read_size

LOW = """
import os, socket, sys, threading, time
closed = [int(number) for number in sys.argv[2].split(",")]
report = open(sys.argv[3], "w")
for number in closed:
    os.close(number)

def taken(when):
    for number in closed:
        try:
            os.fstat(number)
        except OSError:
            continue
        what = os.readlink(f"/proc/self/fd/{number}")
        report.write(f"{when}: {number} is {what}\\n")

socket.setdefaulttimeout(60)  # whoever moves a descriptor must not lose that it never waits
import ipcpoll
from harness import Echo, Host, serve_until
taken("import")
server = ipcpoll.Server(sys.argv[1], Echo)
taken("Server")
server._hub.deadlines.add(time.monotonic() + 60, lambda: None)
taken("timer")
client = ipcpoll.Client(sys.argv[1])
got = []

def ask():
    got.append(client.call(Echo(1)))
    done.wait()
    got.append(client.call(Echo(2)))

done = threading.Event()
thread = threading.Thread(target=ask)
thread.start()
serve_until(server, lambda: got)
taken("a client is connected")
assert all(c._socket.gettimeout() == 0 for c in server._clients.connections.values())
os.unlink(sys.argv[1])
server.rebind()
taken("rebind")
done.set()
serve_until(server, lambda: len(got) == 2)
thread.join()
client.close()
server.close()
taken("close")
report.write(f"{got}\\n")
report.close()
"""


@pytest.mark.once
@pytest.mark.parametrize("closed", ["0", "0,1,2", "1,2"])
@pytest.mark.parametrize("length", ["short", "long"])
def test_hazard_14_no_descriptor_is_that_of_standard_input(directory, request, closed, length):
    place = request.getfixturevalue("long_directory") if length == "long" else directory
    report = f"{directory}/report"
    finish(run_python(LOW, f"{place}/s", closed, report))
    assert Path(report).read_text() == "[1, 2]\n"


@pytest.mark.once
def test_hazard_14_socket_that_was_passed_as_standard_input(directory):
    """As inetd does; it is moved, and standard input is free."""
    source = """
import os, socket, sys
import ipcpoll
from harness import Echo
server = ipcpoll.Server.from_socket(socket.socket(fileno=0), Echo)
try:
    os.fstat(0)
except OSError:
    print("moved", server.reachable())
server.close()
"""
    path = f"{directory}/s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        words = subprocess.run(
            [sys.executable, "-W", "error", "-c", source],
            stdin=listener,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/tests/support"},
        )
    assert (words.stdout, words.stderr) == ("moved True\n", "")


@pytest.mark.parametrize(
    ("size", "got", "largest", "then"),
    [
        (4096, 4095, 65536, 4096),
        (4096, 4096, 65536, 16384),
        (16384, 16384, 65536, 65536),
        (65536, 65536, 65536, 65536),
        (65536, 100, 65536, 4096),
        (100, 100, 100, 100),
        (100, 1, 100, 100),
    ],
)
def test_reads_grow_while_they_are_filled(size, got, largest, then):
    assert next_read_size(size, got, largest) == then
