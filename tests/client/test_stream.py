"""Streams on the client's side: pieces, their end, what is lost, and servers that restart."""

from __future__ import annotations

import gc
import os
import threading
import time
import weakref

import pytest
from fake_server import Count, FakeServer, Hear, be_silent, poll_until
from harness import PATIENCE, Echo, full_backlog, readable, run_python, wait_until

from ipcpoll import (
    Busy,
    Client,
    CommandError,
    InternalError,
    NotAnswered,
    NotPolled,
    NotRunning,
    PeerGone,
    Stream,
    UsageError,
)


def pieces(*numbers):
    return [[1, 2, number] for number in numbers]


# ---------------------------------------------------------------------------------------------
# A loop of the program's own


def test_pieces_and_then_the_result(fake, client):
    stream = client.stream(Count())
    assert isinstance(stream, Stream)
    connection = fake.accept()
    assert connection.next() == [1, "Count", {"to": 3}]
    connection.say(*pieces(1, 2, 3), [1, 0, "done"])
    with pytest.raises(UsageError, match="the stream has not ended yet"):
        _ = stream.result
    assert list(stream) == [1, 2, 3]
    assert stream.result == "done"
    assert list(stream) == []
    assert connection.next() is None, "its connection is closed"


def test_pieces_that_come_later(fake, client):
    stream = client.stream(Count())
    connection = fake.accept()

    def speak():
        for number in range(5):
            connection.say([1, 2, number])
        connection.say([1, 0, "done"])

    speaker = threading.Thread(target=speak)
    speaker.start()
    assert list(stream) == [0, 1, 2, 3, 4]
    speaker.join()


def test_error_behind_pieces(fake, client):
    stream = client.stream(Count())
    fake.accept().say(*pieces(1), [1, 1, {"code": "mine", "message": "no"}])
    assert next(stream) == 1
    for _ in range(2):
        with pytest.raises(CommandError, match=r"no \[mine\]"):
            next(stream)
    with pytest.raises(CommandError, match=r"no \[mine\]"):
        _ = stream.result


def test_leaving_early_cancels(fake, client):
    with client.stream(Count()) as stream:
        connection = fake.accept()
        connection.next()
        connection.say(*pieces(1, 2))
        assert next(stream) == 1
    assert connection.next() is None
    stream.close()
    with pytest.raises(StopIteration):
        next(stream)
    with pytest.raises(UsageError, match="the stream was closed before its end"):
        _ = stream.result


def test_call_inside_the_loop(fake, client):
    """A stream that sends more than anybody reads does not stop the calls."""
    stream = client.stream(Count())
    assert fake.accept().fill([1, 2, 7]) > 64

    def answer():
        connection = fake.accept()
        for number in range(3):
            connection.say([connection.next()[0], 0, number])

    answerer = threading.Thread(target=answer)
    answerer.start()
    assert [(next(stream), client.call(Echo(1))) for _ in range(3)] == [(7, 0), (7, 1), (7, 2)]
    answerer.join()
    stream.close()


def test_time_limit_is_for_each_piece(fake, client):
    stream = client.stream(Count(), timeout=0.05)
    connection = fake.accept()
    connection.next()
    began = time.monotonic()
    wait_until(lambda: time.monotonic() > began + 0.06)
    connection.say(*pieces(1))
    assert next(stream) == 1, "nobody has waited yet"
    with pytest.raises(NotAnswered, match=r"has sent no further piece of Count for 0\.05 s"):
        next(stream)
    with pytest.raises(NotAnswered):
        next(stream)


def test_server_that_does_not_run(client):
    stream = client.stream(Count())
    with pytest.raises(NotRunning):
        next(stream)


def test_server_that_does_not_accept(path, client):
    with full_backlog(path):
        stream = client.stream(Count(), timeout=0.02)
        with pytest.raises(NotPolled, match="its backlog is full"):
            next(stream)


def test_server_that_goes(path, client):
    with FakeServer(path) as fake:
        stream = client.stream(Count())
        connection = fake.accept()
        connection.next()
        connection.say(*pieces(1))
    assert next(stream) == 1
    with pytest.raises(PeerGone, match="before the answer"):
        next(stream)


def test_piece_that_is_not_as_annotated(fake, client):
    stream = client.stream(Count())
    connection = fake.accept()
    connection.next()
    connection.say([1, 2, "text"], [1, 2, 1])
    with pytest.raises(InternalError, match="of Count is not what its annotation says"):
        next(stream)
    assert connection.next() is None
    with pytest.raises(InternalError):
        next(stream)


def test_result_that_is_not_as_annotated(fake, client):
    stream = client.stream(Count())
    fake.accept().say([1, 0, 5])
    assert list(stream) == []
    with pytest.raises(InternalError):
        _ = stream.result


def test_what_has_not_come(client):
    stream = client.stream(Count())
    with pytest.raises(NotRunning):
        stream.next_come()
    with full_backlog(f"{client.address}2"), Client(f"{client.address}2") as other:
        stream = other.stream(Count())
        with pytest.raises(UsageError, match="no piece has come"):
            stream.next_come()


def test_result_that_an_annotation_rules_out_ends_the_future(fake, client):
    end = client.stream(Count()).each(print)
    fake.accept().say([1, 0, 5])
    with pytest.raises(InternalError):
        end.result()


def test_result_of_the_future_with_a_time_limit(fake, client):
    end = client.stream(Count()).each(print)
    with pytest.raises(TimeoutError):
        end.result(0.01)
    end.cancel()


def test_forked_child_leaves_the_stream_alone(fake, client):
    got = []
    end = client.stream(Count()).each(got.append)
    client.fileno()
    pid = os.fork()
    if pid == 0:
        try:
            end.result(1)
        except UsageError:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    fake.accept().say(*pieces(1), [1, 0, "done"])
    poll_until(client, end.done)
    assert (got, end.result()) == ([1], "done")


def test_losses_are_counted_where_they_were(fake, client):
    stream = client.stream(Count())
    fake.accept().say([1, 2, 1], [1, 2, 2, {"lost": 3}], [1, 2, 3, {"lost": 4}])
    seen = [(next(stream), stream.lost) for _ in range(3)]
    assert seen == [(1, 0), (2, 3), (3, 7)]
    stream.close()


def test_command_without_pieces(fake, client):
    stream = client.stream(Echo(1))
    fake.accept().say([1, 0, 5])
    assert list(stream) == []
    assert stream.result == 5


def test_close_of_the_client_ends_it(fake, client):
    stream = client.stream(Count())
    client.close()
    with pytest.raises(PeerGone, match="this client closed the connection"):
        next(stream)
    stream.close()


# ---------------------------------------------------------------------------------------------
# Left and forgotten


LEFT = "of Count> was left before its end"


def in_a_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def test_loop_that_is_left_cancels(fake, client):
    def answer():
        connection = fake.accept()
        connection.next()
        connection.say(*pieces(1, 2))
        connections.append(connection)

    connections = []
    answerer = threading.Thread(target=answer)
    answerer.start()

    def read():
        for piece in client.stream(Count()):
            assert piece == 1
            break

    with pytest.warns(ResourceWarning, match=LEFT) as warned:
        read()
    answerer.join()
    assert connections[0].next() is None
    assert len(warned) == 1
    assert list(client._pump._sessions) == [client._session]


def test_stream_that_is_forgotten_before_it_was_read(fake, client):
    with pytest.warns(ResourceWarning, match=LEFT):
        client.stream(Count())
    connection = fake.accept()
    connection.next()
    assert connection.next() is None


def test_stream_that_is_forgotten_before_there_is_a_connection(path, client):
    with full_backlog(path):
        stream = client.stream(Count())
        with pytest.warns(ResourceWarning, match=LEFT):
            del stream
        assert client.next_deadline() is None


def test_stream_in_a_cycle_is_cancelled_by_the_collector(fake, client):
    cycle = [client.stream(Count())]
    cycle.append(cycle)
    connection = fake.accept()
    connection.next()
    del cycle
    assert connection.is_silent
    with pytest.warns(ResourceWarning, match=LEFT):
        gc.collect()
    assert connection.next() is None


def test_stream_that_is_forgotten_in_another_thread(fake, client):
    """It is only noted there, and the client's next method takes it up."""
    streams = [client.stream(Count())]
    connection = fake.accept()
    connection.next()
    with pytest.warns(ResourceWarning, match=LEFT):
        in_a_thread(streams.clear)
    assert connection.is_silent
    assert client.pending
    client.submit(Echo(1)).cancel()
    assert connection.next() is None
    assert not client.pending


def test_loop_is_told_of_a_stream_that_is_forgotten_in_another_thread(fake, client):
    client.fileno()
    streams = [client.stream(Count())]
    connection = fake.accept()
    connection.next()
    be_silent(client)
    with pytest.warns(ResourceWarning, match=LEFT):
        in_a_thread(streams.clear)
    assert readable(client, PATIENCE)
    client.poll()
    assert connection.next() is None
    be_silent(client)


@pytest.mark.parametrize("in_loop", [False, True])
def test_stream_that_is_forgotten_in_the_midst_of_a_method(fake, client, in_loop):
    """As the collector does, which comes when it likes."""
    if in_loop:
        client.fileno()
    streams = [client.stream(Count())]
    connection = fake.accept()
    connection.next()

    def answer():
        calls = fake.accept()
        calls.say([calls.next()[0], 0, 5])

    channel_of = client._session.post

    def post(*arguments):
        streams.clear()
        assert connection.is_silent, "not in the midst of it"
        return channel_of(*arguments)

    client._session.post = post
    answerer = threading.Thread(target=answer)
    answerer.start()
    with pytest.warns(ResourceWarning, match=LEFT):
        assert client.call(Echo(1)) == 5
    answerer.join()
    assert connection.next() is None


def test_stream_that_is_forgotten_inside_a_poll(fake, client):
    streams = [client.stream(Count())]
    forgotten = fake.accept()
    forgotten.next()
    got = []

    def function(piece):
        streams.clear()
        got.append(piece)

    end = client.stream(Count()).each(function)
    fake.accept().say(*pieces(1, 2), [1, 0, "done"])
    with pytest.warns(ResourceWarning, match=LEFT):
        poll_until(client, end.done)
    assert got == [1, 2]
    assert forgotten.next() is None


def test_streams_that_need_no_warning(fake, client):
    """Those that have ended, were closed, are read by a function, or whose client was closed."""
    stream = client.stream(Count())
    fake.accept().say(*pieces(1), [1, 0, "done"])
    assert next(stream) == 1
    assert list(stream) == []
    with client.stream(Count()):
        pass
    end = client.stream(Count()).each(lambda piece: None)
    gc.collect()
    assert not end.done(), "it goes on although nobody holds it"
    end.cancel()
    stream = client.stream(Count())
    client.close()
    del stream
    gc.collect()


def test_client_and_stream_that_are_forgotten_together(fake, path):
    """Whoever of them goes first."""
    for in_loop in (False, True):
        client = Client(path)
        if in_loop:
            client.fileno()
        stream = client.stream(Count())
        connection = fake.accept()
        connection.next()
        cycle = [client, stream]
        cycle.append(cycle)
        del client, stream, cycle
        with pytest.warns(ResourceWarning):
            gc.collect()
        assert connection.next() is None


def test_many_streams_that_are_forgotten_lock_nobody_out(path, client):
    """More of them than a server takes in."""
    source = (
        "import select, sys, fake_server, ipcpoll\n"
        "from harness import Echo, Host\n"
        "limits = ipcpoll.Limits(max_clients=8)\n"
        "with ipcpoll.Server(sys.argv[1], [Echo, fake_server.Hear], limits=limits) as server:\n"
        "    print('ready')\n"
        "    while True:\n"
        "        select.select([server], [], [])\n"
        "        server.poll(Host())\n"
    )
    process = run_python(source, path)
    try:
        assert process.stdout.readline() == "ready\n"
        for _ in range(40):
            with pytest.warns(ResourceWarning, match="of Hear> was left"):
                client.stream(Hear())
            assert client.call(Echo(1)) == 1
    finally:
        process.kill()
        process.communicate()


def test_map_that_is_left_and_forgotten_gives_up_its_calls(fake, client):
    """In another thread it is only noted, and what is used next takes it up."""
    commands = client.map(map(Echo, range(6)), depth=4)

    def answer():
        connections.append(fake.accept())
        for _ in range(4):
            connections[0].next()
        connections[0].say([1, 0, 0])

    connections = []
    answerer = threading.Thread(target=answer)
    answerer.start()
    assert next(commands) == 0
    answerer.join()
    (connection,) = connections
    iterators = [commands]
    del commands
    in_a_thread(iterators.clear)
    assert connection.is_silent
    client.submit(Echo(9)).cancel()
    assert [connection.next() for _ in range(3)] == [[2], [3], [4]]


# ---------------------------------------------------------------------------------------------
# Subscriptions


def test_quiet_subscription_has_no_time_limit(fake, path):
    with Client(path, timeout=0.01) as client:
        stream = client.stream(Hear())
        connection = fake.accept()
        connection.say(*pieces(1))
        assert next(stream) == 1
        began = time.monotonic()

        def speak():
            wait_until(lambda: time.monotonic() > began + 0.05)
            connection.say(*pieces(2))

        speaker = threading.Thread(target=speak)
        speaker.start()
        assert next(stream) == 2
        speaker.join()
        stream.close()


def test_quiet_subscription_in_a_loop_has_no_time_limit(fake, path):
    with Client(path, timeout=0.01) as client:
        got = []
        end = client.stream(Hear()).each(got.append)
        connection = fake.accept()
        connection.say(*pieces(1))
        poll_until(client, lambda: got == [1])
        assert client.next_deadline() is None
        began = time.monotonic()
        poll_until(client, lambda: time.monotonic() > began + 0.05)
        assert not end.done()
        connection.say(*pieces(2))
        poll_until(client, lambda: got == [1, 2])
        end.cancel()


def test_subscription_with_a_time_limit(fake, client):
    stream = client.stream(Hear(), timeout=0.02)
    fake.accept().say(*pieces(1))
    assert next(stream) == 1
    with pytest.raises(NotAnswered, match=r"has sent no further piece of Hear for 0\.02 s"):
        next(stream)


# ---------------------------------------------------------------------------------------------
# In a loop


def test_each_piece_is_given_to_a_function(fake, client):
    got = []
    end = client.stream(Count()).each(got.append)
    connection = fake.accept()
    assert not readable(client)
    connection.say(*pieces(1, 2))
    poll_until(client, lambda: len(got) == 2)
    be_silent(client)
    assert not end.done()
    connection.say(*pieces(3), [1, 0, "done"])
    poll_until(client, end.done)
    assert (got, end.result()) == ([1, 2, 3], "done")


def test_one_piece_a_turn(fake, client):
    got = []
    client.stream(Count()).each(got.append)
    fake.accept().say(*pieces(*range(5)))
    for number in range(1, 6):
        assert readable(client, PATIENCE)
        assert client.poll(max_seconds=0) == 1
        assert len(got) == number


def test_pieces_that_came_before_each(fake, client):
    got = []
    stream = client.stream(Count())
    fake.accept().say(*pieces(1, 2), [1, 0, "done"])
    assert next(stream) == 1
    end = stream.each(got.append)
    poll_until(client, end.done)
    assert (got, end.result()) == ([2], "done")


def test_exception_of_the_function_comes_out_of_poll(fake, client):
    got = []

    def function(piece):
        got.append(piece)
        if piece == 1:
            raise RuntimeError("mine")

    end = client.stream(Count()).each(function)
    fake.accept().say(*pieces(1, 2), [1, 0, "done"])
    assert readable(client, PATIENCE)
    with pytest.raises(RuntimeError, match="mine"):
        client.poll()
    poll_until(client, end.done)
    assert (got, end.result()) == ([1, 2], "done")


def test_loop_inside_the_function(fake, client):
    """The next pieces come inside it, and not again behind it."""
    got = []

    def function(piece):
        got.append(piece)
        if piece == 1:
            poll_until(client, lambda: len(got) == 3)

    end = client.stream(Count()).each(function)
    fake.accept().say(*pieces(1, 2, 3), [1, 0, "done"])
    poll_until(client, end.done)
    assert got == [1, 2, 3]


def test_error_ends_the_future(fake, client):
    end = client.stream(Count()).each(lambda piece: None)
    fake.accept().say([1, 1, {"code": "mine", "message": "no"}])
    poll_until(client, end.done)
    with pytest.raises(CommandError, match=r"no \[mine\]"):
        end.result()


def test_result_of_the_future_moves_the_client_on(fake, client):
    got = []
    end = client.stream(Count()).each(got.append)
    fake.accept().say(*pieces(1, 2), [1, 0, "done"])
    assert end.result() == "done"
    assert got == [1, 2]


def test_time_limit_of_each(fake, client):
    got = []
    end = client.stream(Count(), timeout=0.05).each(got.append)
    connection = fake.accept()
    connection.next()
    for number in range(4):
        connection.say(*pieces(number))
        poll_until(client, lambda number=number: len(got) == number + 1)
        began = time.monotonic()
        wait_until(lambda began=began: time.monotonic() > began + 0.02)
    poll_until(client, end.done)
    assert isinstance(end.exception(), NotAnswered)
    assert got == [0, 1, 2, 3]
    be_silent(client)


def test_cancelled_future_closes_the_stream(fake, client):
    end = client.stream(Count()).each(lambda piece: None)
    connection = fake.accept()
    connection.next()
    assert end.cancel()
    assert end.cancel()
    assert connection.next() is None
    be_silent(client)


def test_cancelled_in_another_thread(fake, client):
    end = client.stream(Count()).each(lambda piece: None)
    connection = fake.accept()
    connection.next()
    client.fileno()
    thread = threading.Thread(target=end.cancel)
    thread.start()
    thread.join()
    assert readable(client, PATIENCE)
    client.poll()
    assert connection.next() is None


def test_closed_stream_cancels_its_future(fake, client):
    stream = client.stream(Count())
    end = stream.each(lambda piece: stream.close())
    connection = fake.accept()
    connection.next()
    connection.say(*pieces(1, 2))
    poll_until(client, end.done)
    assert end.cancelled()
    assert connection.next() is None


def test_two_readers(client):
    stream = client.stream(Count())
    stream.each(lambda piece: None)
    for use in (lambda: stream.each(print), lambda: next(stream)):
        with pytest.raises(UsageError, match="go to a function already"):
            use()
    stream.close()


@pytest.mark.parametrize("reader", ["none", "slow"])
def test_unread_pieces_are_bounded(fake, client, reader):
    """Beyond 64 the socket is not read, and the descriptor is silent."""
    stream = client.stream(Count())
    connection = fake.accept()
    sent = connection.fill([1, 2, 7])
    while readable(client):
        client.poll()
    assert len(stream._flow._unread) == 64
    read = 0
    if reader == "slow":
        for _ in range(40):
            next(stream)
        read = 40
        assert readable(client)
        be_silent(client)
        assert len(stream._flow._unread) == 64
    ender = threading.Thread(target=connection.say, args=[[1, 0, "done"]])
    ender.start()
    assert len(list(stream)) + read == sent
    ender.join()
    assert stream.result == "done"


def test_server_that_goes_while_nobody_reads(path, client):
    with FakeServer(path) as fake:
        stream = client.stream(Count())
        sent = fake.accept().fill([1, 2, 7])
        while readable(client):
            client.poll()
    assert not readable(client), "the hang-up does not make it spin"
    assert [next(stream) for _ in range(sent)] == [7] * sent
    with pytest.raises(PeerGone):
        next(stream)


# ---------------------------------------------------------------------------------------------
# Servers that restart


def test_stream_resumes_and_says_that_there_was_a_gap(path, client):
    got, gaps = [], []
    stream = client.stream(Count(7), resume=True)
    end = stream.each(got.append, gap=lambda: gaps.append(list(got)))
    for number in range(3):
        with FakeServer(path) as fake:
            poll_until(client, lambda fake=fake: fake.is_asked)
            connection = fake.accept()
            assert connection.next() == [1, "Count", {"to": 7}]
            connection.say([1, 2, number])
            poll_until(client, lambda number=number: len(got) == number + 1)
        os.unlink(path)
    assert (got, gaps, stream.gaps) == ([0, 1, 2], [[0], [0, 1]], 2)
    assert not end.done()
    assert client.next_deadline() is not None
    stream.close()
    be_silent(client)
    assert client.next_deadline() is None


def test_stream_waits_for_a_server_that_does_not_run_yet(path, client):
    stream = client.stream(Count(), resume=True)
    with FakeServer(path) as fake:
        answerer = threading.Thread(target=lambda: fake.accept().say(*pieces(1), [1, 0, "done"]))
        answerer.start()
        assert list(stream) == [1]
        answerer.join()
    assert stream.gaps == 0


@pytest.mark.parametrize("code", ["shutting-down", "busy"])
def test_server_that_says_why_it_goes(fake, client, code):
    stream = client.stream(Count(), resume=True)
    error = {"code": code, "message": "not now"}
    fake.accept().say([None, 1, error])
    answerer = threading.Thread(target=lambda: fake.accept().say(*pieces(1)))
    answerer.start()
    assert next(stream) == 1
    assert stream.gaps == 1
    answerer.join()
    stream.close()


def test_error_of_the_command_is_no_reason_to_resume(fake, client):
    stream = client.stream(Count(), resume=True)
    fake.accept().say([1, 1, {"code": "busy", "message": "too many calls"}])
    with pytest.raises(Busy):
        next(stream)


def test_time_limit_bounds_the_wait_for_a_restart(path, client):
    stream = client.stream(Count(), timeout=0.05, resume=True)
    with pytest.raises(NotRunning):
        next(stream)
    with FakeServer(path) as fake:
        end = client.stream(Count(), timeout=0.05, resume=True).each(print)
        fake.accept().next()
    poll_until(client, end.done)
    assert isinstance(end.exception(), (PeerGone, NotRunning))
    be_silent(client)


def test_function_of_the_gap_that_raises(path, client):
    got = []

    def gap():
        raise RuntimeError("mine")

    client.stream(Count(), resume=True).each(got.append, gap=gap)
    for number in range(2):
        with FakeServer(path) as fake:
            poll_until(client, lambda fake=fake: fake.is_asked)
            fake.accept().say([1, 2, number])
            if number:
                with pytest.raises(RuntimeError, match="mine"):
                    poll_until(client, lambda: False)
            else:
                poll_until(client, lambda: got)
        os.unlink(path)
    assert got == [0, 1]


# ---------------------------------------------------------------------------------------------
# Nothing is left


def test_nothing_is_left_behind_the_end(fake, client):
    client.fileno()
    before = len(os.listdir("/proc/self/fd"))
    stream = client.stream(Count())
    end = stream.each(lambda piece: None)
    connection = fake.accept()
    connection.say(*pieces(1), [1, 0, "done"])
    poll_until(client, end.done)
    assert connection.next()[0] == 1
    assert connection.next() is None
    connection.close()
    assert len(os.listdir("/proc/self/fd")) <= before + 1, "the timer of the client, perhaps"
    references = [weakref.ref(stream), weakref.ref(end)]
    del stream, end
    gc.collect()
    assert [reference() for reference in references] == [None, None]
    assert len(client._pump._sessions) == 1


@pytest.mark.parametrize(
    "place", ["ipcpoll._client.pump.Pump.remind", "ipcpoll._client.pump.Pump.expect_a_loop"]
)
def test_piece_that_an_interruption_cost_is_counted(fake, client, monkeypatch, place):
    """Between its coming and the function there is an instant in which only the count can tell."""
    got = []
    stream = client.stream(Count())
    stream.each(got.append)
    connection = fake.accept()
    connection.say(*pieces(*range(4)))
    poll_until(client, lambda: len(got) == 4)
    connection.say(*pieces(*range(4, 8)))

    def interrupted(*_):
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(place, interrupted)
    with pytest.raises(KeyboardInterrupt):
        poll_until(client, lambda: len(got) == 8)
    poll_until(client, lambda: len(got) + stream.lost == 8)
    assert stream.lost in (0, 1)
    assert got == [number for number in range(8) if number in got]


def test_piece_stays_while_its_reading_is_interrupted(fake, client, monkeypatch):
    stream = client.stream(Count())
    fake.accept().say(*pieces(1, 2))
    assert next(stream) == 1

    def interrupted(*_):
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr("ipcpoll._client.flow.decoded", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    assert next(stream) == 2
    assert stream.lost == 0
    stream.close()
