"""What happens while system calls fail: a server's birth and death, its clients, its nested polls.

Each scenario is a function of a `fault_runs.Run`. It does the same each time, so that the N-th call
of a kind is the same call each time. A step that a fault has made impossible is skipped.
"""

from __future__ import annotations

import contextlib
import os
import socket
from concurrent.futures import Future
from unittest import mock

from fault_runs import COMMANDS, DOCUMENTED, LIMITS, NEVER_FAIL, Caller, Run
from harness import Echo, call, encode, readable
from interrupting import Steps, Watch

from ipcpoll import Client, Server, Topic


def a_life(run: Run) -> None:
    """A dead socket makes way; a call; the path is lost and made anew; another call; the end."""
    _leave_a_dead_socket(run.path)
    server = run.server()
    if server is None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(run.path)
        return
    caller = run.caller(server)
    run.say(caller, caller.ask(run.value()))
    run.serve(server)
    assert server.reachable() or run.faults.met
    os.unlink(run.path)
    waiting = None
    with contextlib.suppress(OSError):  # as the constructor
        server.rebind()
        waiting = run.caller(server)
    for each in (caller, waiting):
        if each is not None:
            run.say(each, each.ask(run.value()))
    run.serve(server)
    caller.listen()
    run.close(server)
    caller.left_alone = True  # its last call may have met the end
    if waiting is not None:
        waiting.left_alone = True


def _leave_a_dead_socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)


def by_name(run: Run) -> None:
    """A server of a name makes the directory of names, and a client finds it there."""
    os.chmod(run.directory, 0o700)
    directory = f"{run.directory}/ipcpoll"
    with mock.patch.dict(os.environ, XDG_RUNTIME_DIR=run.directory):
        try:
            server = run.server(lambda: Server("campaign", COMMANDS, limits=LIMITS))
            if server is not None:
                run.faults.idle = lambda: run.serve(server)
                with Client("campaign", timeout=0.03) as client:
                    _some_calls(run, client)
                run.close(server)
        finally:
            run.faults.on = False
            if os.path.isdir(directory):
                os.chmod(directory, 0o700)
                for name in os.listdir(directory):
                    os.unlink(f"{directory}/{name}")
                os.rmdir(directory)


def from_socket(run: Run) -> None:
    """A socket that listens already is served, and left for the next."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(run.path)
    listener.listen(8)
    first = run.caller(run.path)
    run.say(first, first.ask(run.value()))
    server = run.server(lambda: Server.from_socket(listener, COMMANDS, limits=LIMITS))
    if server is None:
        # It is still the caller's, and none the worse.
        run.faults.on = False
        server = run.server(lambda: Server.from_socket(listener, COMMANDS, limits=LIMITS))
        assert server is not None
    run.serve(server)
    run.close(server)
    listener.close()
    first.left_alone = True
    os.unlink(run.path)


def calls(run: Run) -> None:
    """Pipelining, a bad frame, half a frame, a refusal, a notification, clients that go."""
    server = run.server()
    if server is None:
        return
    first, second, third = (run.caller(server) for _ in range(3))
    run.say(first, *(first.ask(run.value()) for _ in range(4)), call(None, "Echo", value=0))
    bad = b"\xd8\x18\x41\x00"
    run.say(second, second.ask(None, "Refuse", code="c"), bad, second.ask(run.value())[:-1])
    run.serve(server, 2)
    run.poll(server, max_commands=1)
    run.poll(server, max_commands=0)
    second.left_alone = True
    with contextlib.suppress(OSError):
        second.socket.shutdown(socket.SHUT_WR)
    third.close_now()
    run.serve(server)
    run.say(first, first.ask(run.value()))
    run.serve(server)
    run.wake(server)
    run.serve(server)


def back_pressure(run: Run) -> None:
    """A client that does not read, reads a little, reads it all."""
    server = run.server(max_unsent=1000, max_frames_waiting=2)
    if server is None:
        return
    caller = run.caller(server)
    frames = [caller.ask(None, "Blob", size=300_000), *(caller.ask(run.value()) for _ in range(4))]
    run.say(caller, *frames)
    run.serve(server)
    caller.told += caller.received(100_000)
    run.serve(server)
    caller.listen()
    run.serve(server)
    gone = run.caller(server)
    run.say(gone, gone.ask(None, "Blob", size=300_001))
    run.serve(server, 2)
    gone.close_now()
    run.serve(server)


def crowd(run: Run) -> None:
    """More clients than there is room for; the silent ones make room."""
    server = run.server(max_clients=2)
    if server is None:
        return
    silent = [run.caller(server) for _ in range(2)]
    run.serve(server)
    for _ in range(2):
        caller = run.caller(server)
        run.say(caller, caller.ask(run.value()))
        run.serve(server)
    for each in silent:
        each.close_now()
    run.serve(server)
    for caller in run.callers:
        caller.listen()
        caller.close_now()  # there has to be room for those who look whether it still serves
    run.serve(server)


def late_answers(run: Run) -> None:
    """A future, pieces, a topic, a time limit; one ends, one is cancelled, then all go."""
    server = run.server()
    if server is None:
        return
    caller, other = run.caller(server), run.caller(server)
    run.say(other, call(None, "Steps"))
    run.say(
        caller,
        _late(caller, "Ask"),
        _late(caller, "Steps"),
        _late(caller, "Watch"),
        _late(caller, "Ask"),
        _late(caller, "Ask", {"timeout": 0.001}),
    )
    run.serve(server)
    futures = [thing for thing in run.host.log if isinstance(thing, Future)]
    for future in futures[:1]:
        if not future.done():
            future.set_result(5)
    for thing in run.host.log:
        if isinstance(thing, Topic):
            try:
                thing.publish(8)
            except OSError:
                assert run.faults.kind in NEVER_FAIL
    run.serve(server)
    run.say(caller, encode([4]))
    readable(server, 0.003)
    run.serve(server)
    run.faults.on = False
    caller.listen()
    caller.close_now()
    run.serve(server)


def _late(caller: Caller, name: str, *options: object) -> bytes:
    call_id = len(caller.asked) + 1
    caller.asked[call_id] = None
    return encode([call_id, name, {}, *options])


def nested(run: Run) -> None:
    """A command polls, a command in there too, and once too deeply; another closes the server."""
    server = run.server(max_nested_polls=2)
    if server is None:
        return
    first, second, third = (run.caller(server) for _ in range(3))
    waiting = [second, third]

    def inside() -> None:
        if waiting:
            caller = waiting.pop()
            run.say(caller, _do(caller, run.value()))
        run.serve(server)

    run.host.do = inside
    run.say(first, _do(first, run.value()), first.ask(run.value()))
    run.serve(server)
    run.host.do = server.close
    run.say(first, _do(first, run.value()), first.ask(run.value()))
    run.serve(server)
    for caller in (first, second, third):
        caller.left_alone = server.closed


def _do(caller: Caller, value: int) -> bytes:
    return caller.ask(value, "Do")


def client(run: Run) -> None:
    """A client that blocks: calls, a time limit that is over, the server goes and comes back."""
    server = run.server()
    if server is None:
        return
    run.faults.idle = lambda: run.serve(run.servers[-1])
    with Client(run.path, timeout=0.03) as client:
        _some_calls(run, client)
        run.faults.idle = lambda: None
        try:
            client.call(Echo(run.value()), timeout=0)
        except DOCUMENTED:
            pass
        run.faults.idle = lambda: run.serve(run.servers[-1])
        _some_calls(run, client)
        run.close(server)
        if run.server() is not None:
            _some_calls(run, client)


def _some_calls(run: Run, client: Client) -> None:
    for many in (1, 3, 1):
        values = [run.value() for _ in range(many)]
        try:
            if many == 1:
                answers = [client.call(Echo(values[0]))]
            else:
                answers = list(client.map(map(Echo, values), depth=2))
        except TimeoutError:
            pass  # the machine was busy, or a fault kept the answer away
        except DOCUMENTED:
            assert run.faults.met, "a call failed without a fault"
        else:
            assert answers == values
    try:
        client.notify(Echo(run.value()))
    except DOCUMENTED:
        assert run.faults.met


def client_in_a_loop(run: Run) -> None:
    """CallFuture calls and streams, one cancelled, one over its time, the server goes and comes."""
    server = run.server()
    if server is None:
        return
    run.faults.idle = lambda: run.serve(run.servers[-1])
    client = Client(run.path, timeout=0.05)
    begun: list[tuple[object, object]] = []

    def begin(act: object, expected: object) -> None:
        try:
            begun.append((act(), expected))  # type: ignore[operator]
        except DOCUMENTED:
            assert run.faults.met

    def turn(times: int = 3) -> None:
        for _ in range(times):
            run.serve(run.servers[-1], 2)
            try:
                client.poll()
            except OSError:
                unwatched = ("epoll.register", "epoll.modify", "epoll_create", "eventfd")
                kinds = (*NEVER_FAIL, *unwatched, "timerfd_settime")
                assert run.faults.kind in kinds, "the client's poll has raised"
                assert run.faults.met

    with client:
        for _ in range(3):
            value = run.value()
            begin(lambda value=value: client.submit(Echo(value)), value)
        begin(lambda: client.stream(Steps()), [1, 2])
        begin(lambda: client.stream(Watch(), resume=True), None)
        turn()
        cancelled = run.value()
        begin(lambda: client.submit(Echo(cancelled)), cancelled)
        if begun and hasattr(begun[-1][0], "cancel"):
            try:
                begun[-1][0].cancel()
            except OSError:
                assert run.faults.met
        turn()
        run.close(server)
        if run.server() is not None:
            value = run.value()
            begin(lambda: client.submit(Echo(value)), value)
            turn()
        run.faults.on = False
        for thing, expected in begun:
            if isinstance(thing, Future) and not thing.cancelled():
                error = thing.exception(timeout=1)
                assert error is not None or thing.result() == expected
                assert error is None or isinstance(error, DOCUMENTED), error
                assert error is None or run.faults.met or isinstance(error, DOCUMENTED)
    assert client.fileno() == -1


SCENARIOS = (
    a_life,
    by_name,
    from_socket,
    calls,
    back_pressure,
    crowd,
    late_answers,
    nested,
    client,
    client_in_a_loop,
)
