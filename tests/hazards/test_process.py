"""The hazards of Python, the host and the process, one test or more for each.

The numbers are those of the table in docs/security.md, rows 55 to 69. What another module tests
already carries its number there; 68 and 69 are matters of that document alone.
"""

from __future__ import annotations

import importlib.util
import math
import multiprocessing
import os
import signal
import subprocess
import threading
import types
from dataclasses import dataclass

import pytest
from harness import (
    Echo,
    Host,
    Peer,
    answers,
    call,
    encode,
    finish,
    readable,
    run_python,
    serve_process,
    serve_until,
    settle,
    wait_until,
)

from ipcpoll import UsageError
from ipcpoll._wire.framing import frame


class Panic(BaseException):
    """Stands for pyo3_runtime.PanicException: a bug in cbor2 (Rust) derives from BaseException."""


# ---------------------------------------------------------------------------------------------
# 56: what is no Exception


def test_hazard_56_panic_in_the_decoder_is_a_fault_of_that_frame(server, connect, caplog):
    peer, good = connect(server), connect(server)
    server.poll(Host())
    decoder = server._clients._decoder

    def panic():
        raise Panic("called `Option::unwrap()` on a `None` value")

    decoder._renew()  # it is made when it is needed first
    decoder._decode = panic
    # Not by what its class would send: that is read without the decoder.
    peer.send(*(encode([i, "Echo", {"value": i}, {"timeout": 9}]) for i in (1, 2)))
    error, answer = answers(server, peer, 2)
    assert error[:2] == [1, 1]
    assert error[2]["code"] == "malformed"
    assert answer == [2, 0, 2], "by a decoder that was made anew"
    assert decoder._decode is not panic
    assert "called `Option::unwrap()`" in caplog.text
    good.call(3, "Echo", value=3)
    assert answers(server, good, 1) == [[3, 0, 3]]


@dataclass
class Listed:
    """Its answer is made by cbor2, which small scalars are not."""

    size: int

    def process(self, ctx: Host) -> list[int]:
        return [0] * self.size


def test_hazard_56_panic_in_the_encoder_costs_that_answer(
    make_server, connect, caplog, monkeypatch
):
    server = make_server([Listed, Echo])
    peer, good = connect(server), connect(server)
    server.poll(Host())
    panics = [Panic("in the answer")]
    real = importlib.import_module("ipcpoll._wire.codec").cbor2

    def dumps(value):
        if panics:
            raise panics.pop()
        return real.dumps(value)

    monkeypatch.setattr("ipcpoll._wire.codec.cbor2", types.SimpleNamespace(dumps=dumps))
    peer.send(call(1, "Listed", size=5), call(2, "Listed", size=2))
    error, answer = answers(server, peer, 2)
    assert error[:2] == [1, 1]
    assert error[2]["code"] == "internal"
    assert answer == [2, 0, [0, 0]]
    assert "in the answer" in caplog.text
    panics += [Panic("everywhere")] * 3  # the answer, its error, and the error about the error
    peer.call(3, "Listed", size=3)
    serve_until(server, lambda: peer.received() or peer.ended)
    assert peer.ended, "nothing can be said to it"
    assert "poll met what it did not foresee" in caplog.text
    good.call(4, "Echo", value=4)
    assert answers(server, good, 1) == [[4, 0, 4]]


# ---------------------------------------------------------------------------------------------
# 57: an exception out of a signal handler, at any point. Every line has a test of its own.

STORM = """
import logging, random, signal, sys
from collections import Counter
from harness import COMMANDS, Host, Peer, call, settle
from ipcpoll import Limits, Server

class Alarm(Exception): pass

kind = {"Alarm": Alarm, "KeyboardInterrupt": KeyboardInterrupt}[sys.argv[2]]
lines, seen = [], Counter()
inside = False

class Lines(logging.Handler):
    def emit(self, record): lines.append(record.getMessage())

logger = logging.getLogger("ipcpoll")
logger.addHandler(Lines())
logger.propagate = False

def strike(number, frame):
    global inside
    if inside:
        inside = False
        seen["landed"] += 1
        raise kind

signal.signal(signal.SIGALRM, strike)
random.seed(1)

def poll_in_the_storm():
    global inside
    try:
        inside = True
        signal.setitimer(signal.ITIMER_REAL, random.uniform(2e-6, 150e-6))
        server.poll(host)
    except kind:
        seen["came out"] += 1
    inside = False

server = Server(sys.argv[1], COMMANDS, limits=Limits(log_seconds=0))
host = Host()
peer = None
for number in range(int(sys.argv[3])):
    if peer is None:
        peer = Peer(server)
        server.poll(host)
    asked = [2 * number, 2 * number + 1]
    peer.send(*(call(i, "Echo", value=i) for i in asked))
    poll_in_the_storm()
    got = []
    for _ in range(10):
        server.poll(host)
        got += peer.received()
        if len(got) == 2 or peer.ended: break
    trial = (number, got, host.log, lines, peer.ended)
    assert len(got) == 2 or peer.ended, trial
    assert len(got) == 2 or lines, trial
    for message in got:
        if message[1] == 0: assert message[0] == message[2] and message[0] in host.log, trial
        else: assert lines, trial
    assert len({message[0] for message in got}) == len(got) or None in {m[0] for m in got}, trial
    assert max(Counter(host.log).values(), default=0) <= 1, trial
    lost = peer.ended or len(got) < 2
    seen["lost"] += lost
    del lines[:], host.log[:]
    if lost:
        peer.close()
        peer = None
        settle(server, host)
        assert server.stats()["clients"] == 0
server.close()
assert seen["landed"] > 100 and seen["lost"] > 10, seen
"""


@pytest.mark.parametrize("kind", ["KeyboardInterrupt", "Alarm"])
def test_hazard_57_storm_of_exceptions_from_a_timer(directory, kind):
    """Each answer belongs to its call, or its connection was closed and the log says so."""
    finish(run_python(STORM, f"{directory}/s", kind, "4000"))


# ---------------------------------------------------------------------------------------------
# 59: a command ends connections. How one closes the server is in test_closing.


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("whose", ["own", "another"])
def test_hazard_59_command_that_ends_a_connection(server, connect, monkeypatch, whose, nested):
    monkeypatch.setattr(
        "ipcpoll._server.scheduler._LOOK_SECONDS", math.inf
    )  # or a slow machine sees it go
    own, another, witness = (connect(server) for _ in range(3))
    server.poll(Host())
    victim, survivor = (own, another) if whose == "own" else (another, own)
    host = Host()

    def end():
        victim.close()
        if nested:
            witness.call(7, "Echo", value=7)
            server.poll(host)
            assert witness.received() == [[7, 0, 7]]

    host.do = end
    own.send(call(1, "Do", value=1), call(2, "Echo", value=2))
    another.send(call(3, "Echo", value=3), call(4, "Echo", value=4))
    server.poll(host, max_seconds=math.inf)  # all in one, however slow the machine is
    settle(server, host)
    assert server.stats()["clients"] == 2
    assert survivor.received() == (
        [[3, 0, 3], [4, 0, 4]] if whose == "own" else [[1, 0, 1], [2, 0, 2]]
    )
    ran = sorted(entry for entry in host.log if entry in (2, 3, 4))
    if nested:
        # The nested poll has seen it go: no call of it is run any more.
        assert ran == ([3, 4] if whose == "own" else [2])
    else:
        assert ran == [2, 3, 4], "taken in by then, each once"
    witness.call(8, "Echo", value=8)
    assert answers(server, witness, 1, host) == [[8, 0, 8]]


# ---------------------------------------------------------------------------------------------
# 60: threads and signals


def test_hazard_60_wake_from_a_signal_handler_ends_a_wait(server):
    before = signal.signal(signal.SIGALRM, lambda *_: server.wake())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        assert readable(server, 20)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    settle(server)


def test_hazard_60_threads_wake_while_calls_are_served_and_the_server_closes(server, connect):
    stop = threading.Event()

    def wake():
        while not stop.is_set():
            server.wake()

    threads = [threading.Thread(target=wake) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        peer = connect(server)
        for i in range(200):
            peer.call(i, "Echo", value=i)
            assert answers(server, peer, 1) == [[i, 0, i]]
        server.close()
        server.wake()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert server._hub.wakeup._open == [], "nothing stays open, whoever wrote last"


# ---------------------------------------------------------------------------------------------
# 61: fork


def poll_in_child(server, pipe):
    try:
        server.poll(Host())
    except UsageError as error:
        pipe.send((str(error), server.closed, server.fileno()))
    server.close()


def test_hazard_61_child_of_multiprocessing_can_neither_poll_nor_harm(server, peer):
    peer.call(1, "Echo", value=1)
    server.poll(Host(), max_commands=0)
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    child = context.Process(target=poll_in_child, args=(server, theirs))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert ours.recv() == (
        "this process was forked from the one that made it, and it belongs to the parent",
        True,
        -1,
    )
    ours.close()
    theirs.close()
    assert answers(server, peer, 1) == [[1, 0, 1]], "neither deaf nor robbed"
    late = Peer(server)
    late.call(2, "Echo", value=2)
    assert answers(server, late, 1) == [[2, 0, 2]]
    late.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_hazard_61_fork_while_another_thread_wakes(server, monkeypatch):
    """That thread is not in the child, and whatever it held is held for ever."""
    writes, go_on = threading.Event(), threading.Event()

    def write(fd, data):
        writes.set()
        assert go_on.wait(20)
        return os.write(fd, data)

    number = server._hub.wakeup.fileno()
    monkeypatch.setattr("ipcpoll._system.wakeup._write", write)
    thread = threading.Thread(target=server.wake)
    thread.start()
    try:
        assert writes.wait(20)
        pid = os.fork()  # here the child lets go of everything
        if pid == 0:
            status = 1
            try:
                os.fstat(number)
            except OSError:
                status = 0 if server.closed else 2
            finally:
                os._exit(status)
        ended = []
        waiter = threading.Thread(target=lambda: ended.append(os.waitpid(pid, 0)[1]))
        waiter.start()
        waiter.join(20)
        if not ended:
            os.kill(pid, signal.SIGKILL)
            waiter.join()
        assert ended == [0]
    finally:
        go_on.set()
        thread.join()
    settle(server)


# ---------------------------------------------------------------------------------------------
# 63: signals that interrupt system calls


TICKING_CLIENT = """
import signal, sys
from harness import Echo
from ipcpoll import Client
ticks = 0
def tick(*_):
    global ticks
    ticks += 1
signal.signal(signal.SIGALRM, tick)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
with Client(sys.argv[1], timeout=20) as client:
    for i in range(3000):
        assert client.call(Echo(i)) == i
signal.setitimer(signal.ITIMER_REAL, 0)
print(ticks > 0)
"""


def test_hazard_63_thousand_signals_a_second_at_both_ends(server):
    ticks = []
    before = signal.signal(signal.SIGALRM, lambda *_: ticks.append(1))
    client = run_python(TICKING_CLIENT, server.address)
    host = Host()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        assert serve_process(server, client, host) == "True\n"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert host.log == list(range(3000))
    assert ticks


# ---------------------------------------------------------------------------------------------
# 64: a host that stood still, and a clock that jumps


STOPPED_HOST = """
import sys
from harness import COMMANDS, Host, serve_until
from ipcpoll import Server
host = Host()
with Server(sys.argv[1], COMMANDS) as server:
    print("listening", flush=True)
    serve_until(server, lambda: 99 in host.log, host)
print(host.log)
"""


def test_hazard_64_host_that_is_stopped_cuts_off_nobody(directory):
    path = f"{directory}/s"
    host = run_python(STOPPED_HOST, path)
    try:
        assert host.stdout.readline() == "listening\n"
        with Peer(path) as half, Peer(path) as slow, Peer(path) as caller:
            half.send(call(1, "Echo", value=1)[:-1])
            slow.send(*(call(i, "Blob", size=600_000) for i in range(2)))
            caller.call(1, "Echo", value=10)
            got = []
            wait_until(lambda: got.extend(caller.received()) or got)
            os.kill(host.pid, signal.SIGSTOP)
            _, status = os.waitpid(host.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            caller.call(2, "Echo", value=20)
            with Peer(path) as late:
                late.call(3, "Echo", value=30)
                half.send(call(1, "Echo", value=1)[-1:])
                assert not readable(late.socket, 0.3), "it stands still"
                os.kill(host.pid, signal.SIGCONT)
                for peer, expected in (
                    (caller, [2, 0, 20]),
                    (late, [3, 0, 30]),
                    (half, [1, 0, 1]),
                ):
                    answer = []
                    wait_until(
                        lambda peer=peer, answer=answer: answer.extend(peer.received()) or answer
                    )
                    assert answer == [expected]
                blobs = []
                wait_until(lambda: blobs.extend(slow.received(100_000)) or len(blobs) == 2)
                late.call(4, "Echo", value=99)
                finish(host)
    finally:
        if host.poll() is None:
            host.kill()
            host.communicate()


def test_hazard_64_clock_that_jumps_a_year_cuts_off_nobody(make_server, connect, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(
        "ipcpoll._server.server.time", types.SimpleNamespace(monotonic=lambda: now[0])
    )
    server = make_server()
    half, slow, idle = (connect(server) for _ in range(3))
    half.send(call(1, "Echo", value=1)[:-1])
    slow.send(*(call(i, "Blob", size=600_000) for i in range(2)))
    settle(server)
    now[0] += 365 * 86400.0
    half.send(call(1, "Echo", value=1)[-1:])
    idle.call(2, "Echo", value=2)
    assert answers(server, half, 1) == [[1, 0, 1]]
    assert idle.received() == [[2, 0, 2]]
    got = []
    serve_until(server, lambda: got.extend(slow.received(100_000)) or len(got) == 2)
    assert server.stats()["clients"] == 3


# ---------------------------------------------------------------------------------------------
# 66: no memory


NO_MEMORY = """
import gc, logging, os, sys
import _testcapi
from harness import COMMANDS, Host, Peer, call, readable
from ipcpoll import Limits, Server

path, first, last, step, failures = sys.argv[1], *map(int, sys.argv[2:])
logging.getLogger("ipcpoll").addHandler(logging.NullHandler())
logging.getLogger("ipcpoll").propagate = False
host = Host()
server = Server(path, COMMANDS, limits=Limits(log_seconds=0))

def until(condition):
    for _ in range(100):
        if condition(): return True
        if readable(server): server.poll(host)
    return False

def connected():
    peer = Peer(server)
    server.poll(host)
    return peer

def exchange(peer, count):
    got = []
    assert until(lambda: got.extend(peer.received()) or len(got) >= count or peer.ended), got
    return got

asked = [call(1, "Echo", value=1), call(2, "Blob", size=5000), call(3, "Refuse", code="c")]
witness = connected()
for n in range(first, last, step):
    print(n, flush=True)
    open_before = len(os.listdir("/proc/self/fd"))
    peer = Peer(server)  # it is accepted in the poll whose memory fails
    peer.send(*asked)
    gc.collect()
    _testcapi.set_nomemory(n, n + failures)
    try:
        server.poll(host)
    except MemoryError:
        pass  # before it had anything in hand
    finally:
        _testcapi.remove_mem_hooks()
    got = exchange(peer, 3)
    if len(got) < 3 or any(message[1] for message in got[:2]):
        print("wounded", flush=True)
    assert len(got) == 3 or peer.ended
    witness.send(call(n, "Echo", value=n))
    assert exchange(witness, 1) == [[n, 0, n]], "one that was not in hand"
    peer.close()
    assert until(lambda: not readable(server)), "it spins"
    assert server.stats()["clients"] == 1
    assert len(os.listdir("/proc/self/fd")) == open_before, "a descriptor was lost"
server.close()
print("done")
"""

NOT_OURS = ("Fatal Python error", "non-unwinding panic", "PyObject pointer is null")
"""What CPython and pyo3 say when they end the process themselves. The last one pyo3 survives, and
what it leaves behind shows up anywhere later: mostly as a segmentation fault, sometimes as an
exception where nothing has failed."""


@pytest.mark.parametrize("failures", [1, 2])
def test_hazard_66_memory_that_fails_costs_one_connection(directory, failures):
    """The n-th allocation of a poll fails, for a sample of n, and the next is the poll's again."""
    if importlib.util.find_spec("_testcapi") is None:
        pytest.skip("this CPython has no _testcapi")
    first, last, step = 0, 400, 4
    wounded = 0
    while first < last:
        child = run_python(
            NO_MEMORY, f"{directory}/{first}", str(first), str(last), str(step), str(failures)
        )
        try:
            out, err = child.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            child.kill()
            out, err = child.communicate()
        lines = out.splitlines()
        wounded += lines.count("wounded")
        if child.returncode == 0:
            assert lines[-1] == "done"
            break
        told = [line for line in lines if line.isdecimal()][-1]
        died = child.returncode in (-signal.SIGSEGV, -signal.SIGABRT)  # no Python code can do that
        assert died or any(words in err for words in NOT_OURS), f"at {told}: {err[-3000:]}"
        first = int(told) + step
    assert wounded, "no failure reached anything"


# ---------------------------------------------------------------------------------------------
# 67: the log


def test_every_traceback_that_a_client_is_told_of_is_in_the_log(make_server, connect, caplog):
    """The second one of a command, in the same minute."""

    @dataclass
    class Fail:
        how: int

        def process(self, ctx: Host) -> None:
            if self.how == 1:
                raise ValueError("the first")
            {}["the second"]

    server = make_server([Fail])
    peer = connect(server)
    peer.send(*(call(i, "Fail", how=1 + i % 2) for i in range(6)))
    told = answers(server, peer, 6)
    assert {body["code"] for _, _, body in told} == {"internal"}
    assert len([record for record in caplog.records if record.exc_info]) == 2
    assert "ValueError: the first" in caplog.text
    assert "KeyError: 'the second'" in caplog.text


def test_hazard_67_flood_of_mishaps_is_a_line_for_each_kind(server, connect, caplog):
    host = Host(do=lambda: 1 / 0)
    for _ in range(10):
        peer = connect(server)
        peer.send(*[frame(b"\xff")] * 200, *(call(i, "Do") for i in range(100)))
        assert len(answers(server, peer, 300, host)) == 300
    assert sorted(record.levelname for record in caplog.records) == ["ERROR", "WARNING"]
    assert server.stats()["faults"] == 2000, "counted all the same"
