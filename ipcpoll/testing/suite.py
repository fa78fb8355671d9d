"""The cases that every adapter passes in its real loop: see `ipcpoll.testing`."""

from __future__ import annotations

import functools
import gc
import itertools
import os
import resource
import socket
import tempfile
import threading
import time
import weakref
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from unittest import SkipTest

from .._attach.attachment import Attachment
from .._attach.pollable import Pollable
from .._client.client import Client
from .._server.server import Server
from .._wire.codec import encode
from .._wire.framing import frame
from ..errors import CommandError, InternalError, ShuttingDown, UsageError
from .commands import COMMANDS, Context, Do, Echo, Fail, Work
from .fakes import PATIENCE, FakePollable, Watched, any_detached, polled
from .late import LateAnswers

# ---------------------------------------------------------------------------------------------
# A pollable that is no server


# ---------------------------------------------------------------------------------------------
# What the suite's clients ask


# ---------------------------------------------------------------------------------------------
# The suite


def does_not_apply(reason: str) -> Exception:
    """Return what a case raises that asks for what the loop has not: pytest shows it as skipped."""
    return SkipTest(f"does not apply: {reason}")


class AdapterConformance(LateAnswers):
    """What every adapter must do in its real loop. See the module's docstring."""

    # The hooks

    @abstractmethod
    def open_loop(self) -> None:
        """Make the loop, and what it needs: a window, a reactor. Called before each case."""

    @abstractmethod
    def close_loop(self) -> None:
        """End the loop for good, and destroy the window. Called after each case; idempotent."""

    @abstractmethod
    def run_loop(self) -> None:
        """Run until `stop_loop`. Called several times in one case."""

    @abstractmethod
    def stop_loop(self) -> None:
        """Let `run_loop` return soon. Called inside callbacks of the loop."""

    @abstractmethod
    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        """Call a function once, by the loop's own timer."""

    @abstractmethod
    def attach(
        self, pollable: Pollable, ctx: Any, *, max_seconds: float | None = None
    ) -> Attachment:
        """Attach with the adapter that is to be proven."""

    can_nest = False
    """Whether the loop can be run inside its own callbacks; then `run_nested` says how."""

    def run_nested(self, seconds: float) -> None:
        """Run the loop for a time inside a callback, as a modal dialog does."""
        raise NotImplementedError

    has_window = False
    """Whether the loop draws a window; then `show` and `shown` say how it is changed and seen."""

    def show(self, number: int) -> None:
        """Let the window look otherwise than for the number before, in the toolkit's own way."""
        raise NotImplementedError

    def shown(self) -> object:
        """Return what the screen shows of the window: a pixel's colour, read from elsewhere."""
        raise NotImplementedError

    reports_errors = True
    """Whether the host is told of exceptions of `poll`, and `reported` returns them."""

    def reported(self) -> list[BaseException]:
        """Return the exceptions that the host was told of since the loop was opened."""
        raise NotImplementedError

    takes_high_descriptors = True
    """Whether descriptors above 1,023 can be watched (if need be through a low copy)."""

    forgets_closed_descriptors = True
    """Whether a descriptor can be taken out of the loop after it was closed."""

    tells_callbacks = False
    """Whether the adapter knows that it is asked inside its loop (`Attachment._is_inside_loop`)."""

    can_end = True
    """Whether a loop that was closed is known to have ended; a context of GLib can always go on."""

    survives_fork = True
    """Whether a process with this loop may fork and go on."""

    # What every case needs

    @classmethod
    def cases(cls) -> list[str]:
        """Return the names of the suite's cases."""
        suites: tuple[type, ...] = (AdapterConformance, LateAnswers)
        return [name for suite in suites for name in vars(suite) if name.startswith("test_")]

    def setup_method(self) -> None:
        """Open a loop, and a directory for sockets. pytest calls it."""
        self.open = ExitStack()
        self.directory = self.open.enter_context(tempfile.TemporaryDirectory(prefix="ipcpoll-"))
        self.open_loop()
        self.open.callback(self.close_loop)
        self.servers = 0
        self.problems: list[BaseException] = []

    def teardown_method(self) -> None:
        """Close what the case has left open."""
        self.open.close()

    def make_server(self) -> tuple[Server[Any], Context]:
        """Return a new server, closed at the end of the case, and its context."""
        self.servers += 1
        server: Server[Any] = Server(f"{self.directory}/{self.servers}.sock", COMMANDS)
        self.open.callback(server.close)
        return server, Context(end=self.stop_loop)

    def run(
        self,
        *clients: Callable[[], None],
        seconds: float = 0,
        until: Callable[[], object] = lambda: True,
    ) -> None:
        """Run the loop while clients run in threads, until all have ended.

        And not before the time is over, and `until` is true. What a client raises fails the case.
        """
        began = time.monotonic()
        threads = [threading.Thread(target=self._client, args=[body]) for body in clients]
        over = False

        def start() -> None:
            for thread in threads:
                thread.start()
            look()

        def look() -> None:
            """Stop the loop, by its own timer. A timer that comes too late does nothing."""
            if over:
                return
            gone = time.monotonic() - began
            if gone > PATIENCE:
                self.problems.append(AssertionError(f"it did not end within {PATIENCE:g} s"))
            if self.problems or (
                gone >= seconds and not any(thread.is_alive() for thread in threads) and until()
            ):
                self.stop_loop()
            else:
                self.call_later(0.01, look)

        self.call_later(0, start)
        try:
            self.run_loop()
        finally:
            over = True
        if self.problems:
            raise self.problems[0]
        for thread in threads:
            thread.join(PATIENCE)

    def _client(self, body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:
            self.problems.append(error)

    def ask(self, server: Server[Any], count: int = 10) -> None:
        """Be a client that makes some calls, one after the other."""
        with Client(server.address, timeout=PATIENCE) as client:
            for value in range(count):
                assert client.call(Echo(value)) == value

    def asking(self, server: Server[Any], count: int = 10) -> Callable[[], None]:
        """Return `ask` as a client for `run`."""
        return lambda: self.ask(server, count)

    # The cases

    def test_round_trip(self) -> None:
        """Calls are answered."""
        server, ctx = self.make_server()
        attachment = self.attach(server, ctx)
        assert attachment.attached
        self.run(self.asking(server, 100))
        assert ctx.log == list(range(100))

    def test_context_and_budget_reach_poll(self) -> None:
        """`poll` gets what `attach` was given."""
        fake, ctx = FakePollable(), object()
        self.attach(fake, ctx, max_seconds=0.25)
        fake.ready()
        self.run(until=polled(fake))
        fake.close()
        assert fake.polls == [(ctx, 0.25)]

    def test_100_pipelined_frames_with_one_command_a_poll(self) -> None:
        """What was read and not served keeps the descriptor ready, and the loop coming back."""
        server, ctx = self.make_server()
        watched = Watched(server)
        self.attach(watched, ctx, max_seconds=0)

        def ask() -> None:
            with Client(server.address, timeout=PATIENCE) as client:
                assert list(client.map([Echo(i) for i in range(100)], depth=100)) == [*range(100)]

        self.run(ask)
        assert watched.polls >= 100
        assert ctx.log == list(range(100))

    def test_work_that_is_left_is_done_between_timers(self) -> None:
        """Each poll is a callback of its own: the level brings the loop back, not a new event."""
        fake = FakePollable()
        self.attach(fake, None)
        seen: list[int] = []

        def work() -> None:
            end = time.monotonic() + 0.004
            while time.monotonic() < end:
                pass

        def tick() -> None:
            seen.append(len(fake.polls))
            if len(seen) < 100 and fake.work:
                self.call_later(0.002, tick)

        fake.on_poll = work
        fake.ready(50)
        self.call_later(0.002, tick)
        self.run(until=lambda: not fake.work)
        fake.close()
        assert len(fake.polls) == 50
        assert len({polls for polls in seen if 0 < polls < 50}) >= 5, "the timers waited"

    def test_poll_is_looked_up_each_time(self) -> None:
        """A pollable may replace its `poll`."""
        fake = FakePollable()
        self.attach(fake, None)
        fake.ready()
        self.run(until=polled(fake))
        replaced: list[object] = []

        def other(ctx: Any, *, max_seconds: float | None = None) -> int:
            replaced.append(ctx)
            return FakePollable.poll(fake, ctx, max_seconds=max_seconds)

        fake.__dict__["poll"] = other
        fake.ready()
        self.run(until=lambda: not fake.work)
        fake.close()
        assert replaced == [None]

    def test_idle_second_without_a_poll(self) -> None:
        """Clients that are connected and silent wake nobody."""
        server, ctx = self.make_server()
        watched = Watched(server)
        self.attach(watched, ctx)
        with Client(server.address, timeout=PATIENCE) as client:
            self.run(lambda: client.notify(Echo(1)), seconds=0.1, until=lambda: ctx.log)
            before = watched.polls
            self.run(seconds=1.0)
        assert ctx.log == [1]
        assert watched.polls == before

    def test_flood_does_not_stop_the_loop(self) -> None:
        """The loop's own timers go on while there is always work, and all of it is answered.

        Counted in calls, each with a millisecond of the processor's time: a busy machine is not
        the adapter's fault, and between two timers that are due there is no time for more.
        """
        server, ctx = self.make_server()
        self.attach(server, ctx, max_seconds=0.002)
        counts = [0]
        flooding = 3

        def tick() -> None:
            counts.append(len(ctx.log))
            if flooding:
                self.call_later(0.005, tick)

        def flood(client: Client, first: int) -> None:
            nonlocal flooding
            values = range(first + 50, first + 80)
            assert list(client.map(map(Work, values), depth=20)) == list(values)
            flooding -= 1

        clients = []
        for first in (1000, 2000, 3000):
            client = self.open.enter_context(Client(server.address, timeout=PATIENCE))
            for value in range(first, first + 50):
                client.notify(Work(value))  # before the loop runs, so that work waits for it
            clients.append(functools.partial(flood, client, first))
        self.call_later(0, tick)
        self.run(*clients, self.asking(server, 5))
        for first in (1000, 2000, 3000):
            served = [value for value in ctx.log if first <= value < first + 1000]
            assert served == list(range(first, first + 80))
        calls = [late - early for early, late in itertools.pairwise(counts)]
        assert max(calls) <= 20, f"so many calls were served between two timers: {max(calls)}"

    def test_flood_does_not_stop_the_redraws(self) -> None:
        """What a timer of the host changes is seen on the screen while there is always work."""
        if not self.has_window:
            raise does_not_apply("the loop draws nothing")
        server, ctx = self.make_server()
        self.attach(server, ctx)
        seen: list[object] = [self.shown()]
        end = time.monotonic() + PATIENCE
        flooding = threading.Event()

        def tick() -> None:
            if flooding.is_set() and (now := self.shown()) != seen[-1]:
                seen.append(now)
                self.show(len(seen))
            if len(seen) <= 10:
                self.call_later(0.005, tick)

        def flood() -> None:
            def work() -> Iterator[Work]:
                while len(seen) <= 10 and time.monotonic() < end:
                    yield Work(0)

            with Client(server.address, timeout=PATIENCE) as client:
                for _ in client.map(work(), depth=200):
                    flooding.set()
            assert len(seen) > 10, f"the screen changed only {len(seen) - 1} times"

        self.show(1)
        self.call_later(0, tick)
        self.run(flood)

    def test_slow_writer_and_a_client_that_does_not_read(self) -> None:
        """Neither holds up the loop or the good client, and the loop does not spin for them."""
        server, ctx = self.make_server()
        watched = Watched(server)
        self.attach(watched, ctx)
        request = frame(b"\x83\x01" + encode("Echo") + encode({"value": 7}))
        with ExitStack() as stack:
            greedy, slow = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
            for sock in (greedy, slow):
                sock.connect(server.address)
                sock.settimeout(PATIENCE)
            greedy.sendall(frame(b"\x83\x01" + encode("Blob") + encode({"size": 2_000_000})))

            def write_slowly() -> None:
                for index in range(len(request)):
                    slow.sendall(request[index : index + 1])
                    assert len(ctx.log) < 1000
                    self.ask(server, 1)
                assert slow.recv(100) == frame(b"\x83\x01\x00\x07")

            self.run(write_slowly)
            self.run(seconds=0.1)
            before = watched.polls
            self.run(seconds=0.2)
            assert watched.polls == before, "it spins"
        self.run(self.asking(server, 3))

    def test_command_that_raises(self) -> None:
        """That is the client's to know, and the log's, not the loop's."""
        server, ctx = self.make_server()
        self.attach(server, ctx)

        def ask() -> None:
            with Client(server.address, timeout=PATIENCE) as client:
                for value in range(3):
                    try:
                        client.call(Fail())
                    except InternalError as error:
                        messages.append(error.message)
                    assert client.call(Echo(value)) == value

        messages: list[str] = []
        self.run(ask)
        assert messages == ["Fail raised ZeroDivisionError: as it should"] * 3
        if self.reports_errors:
            assert self.reported() == []

    def test_exception_of_poll_is_reported_and_the_watch_goes_on(self) -> None:
        """The host misused the pollable: it is told in its own way, and the loop lives."""
        fake = FakePollable()
        attachment = self.attach(fake, None)
        fake.error = error = ZeroDivisionError("told to the host")
        fake.ready()
        try:
            self.run(until=polled(fake))
        except ZeroDivisionError:
            assert not self.reports_errors
        fake.ready()
        self.run(until=polled(fake, times=2))
        assert attachment.attached
        fake.close()
        if self.reports_errors:
            assert self.reported() == [error]

    def test_nested_loop_in_a_command(self) -> None:
        """Others are served meanwhile, the caller's next call waits, and nothing spins."""
        if not self.can_nest:
            raise does_not_apply("the loop can't be run inside its callbacks")
        server, ctx = self.make_server()
        watched = Watched(server)
        self.attach(watched, ctx)
        served_inside: list[int] = []

        entered = threading.Event()

        def dialog() -> None:
            entered.set()
            before = len(ctx.log)
            self.run_nested(0.5)
            served_inside.extend(ctx.log[before:])

        ctx.do = dialog

        def open_dialog() -> None:
            with Client(server.address, timeout=PATIENCE) as client:
                client.call(Do())
                assert client.call(Echo(-2)) == -2

        def meanwhile() -> None:
            assert entered.wait(PATIENCE)
            self.ask(server, 30)

        self.run(open_dialog, meanwhile)
        assert len(served_inside) >= 20, "the others were not served inside"
        assert watched.polls < 1000, "it spins"

    def test_server_closed_in_a_command(self) -> None:
        """The call is still answered, the loop goes on, and knows nothing of the server."""
        server, ctx = self.make_server()
        attachment = self.attach(server, ctx)
        ctx.do = server.close

        def ask() -> None:
            with Client(server.address, timeout=PATIENCE) as client:
                assert client.call(Do()) == 0

        self.run(ask)
        assert not attachment.attached
        assert server.attachments == set()
        self.run(seconds=0.05)

    def test_pollable_that_closes_itself_and_knows_no_attachments(self) -> None:
        """Nobody detached it; that is found out before the loop looks at its descriptor again."""
        if not self.forgets_closed_descriptors:
            raise does_not_apply("the loop can't be told of a descriptor that was closed first")
        fake = FakePollable()
        del fake.attachments  # as of a pollable that has no such set
        attachment = self.attach(fake, None)
        fake.on_poll = fake.forget
        fake.ready(2)
        self.run(seconds=0.05, until=polled(fake))
        assert not attachment.attached
        assert len(fake.polls) == 1
        other = FakePollable()
        self.attach(other, None)
        other.ready()
        self.run(until=polled(other))
        assert (len(fake.polls), len(other.polls)) == (1, 1)
        other.close()

    def test_work_comes_again_and_again_while_the_loop_is_nested(self) -> None:
        """Inside a command there is always work for others; outside it goes on as before."""
        if not self.can_nest:
            raise does_not_apply("the loop can't be run inside its callbacks")
        fake = FakePollable()
        self.attach(fake, None)

        def dialog() -> None:
            fake.on_poll = lambda: None
            self.run_nested(0.2)
            inside.append(len(fake.polls))

        inside: list[int] = []
        fake.on_poll = dialog
        fake.ready(30)
        self.run(until=lambda: inside)
        assert inside == [30]
        fake.ready(3)
        self.run(until=polled(fake, times=33))
        fake.close()

    def test_connection_that_ends_in_its_command(self) -> None:
        """Its client goes while its command runs."""
        server, ctx = self.make_server()
        self.attach(server, ctx)
        with Client(server.address, timeout=PATIENCE) as client:
            ctx.do = client.close
            self.run(lambda: client.notify(Do()), self.asking(server), seconds=0.05)
        assert sorted(ctx.log) == list(range(10))

    def test_detached_in_a_command(self) -> None:
        """The command is answered; then nobody is served until it is attached again."""
        server, ctx = self.make_server()
        watched = Watched(server)
        attachment = self.attach(watched, ctx)
        ctx.do = attachment.detach
        client = self.open.enter_context(Client(server.address, timeout=PATIENCE))
        self.run(lambda: self._expect(client, 0))
        assert not attachment.attached
        before = watched.polls
        self.run(lambda: client.notify(Echo(5)), seconds=0.05)
        assert (watched.polls, ctx.log) == (before, [])
        self.attach(watched, ctx)
        self.run(until=lambda: ctx.log)
        assert ctx.log == [5]

    def _expect(self, client: Client, answer: int) -> None:
        assert client.call(Do()) == answer

    def test_pause_resume_detach_in_every_order_twice(self) -> None:
        """Whatever the order, the state after it is the one that the last word says."""
        fake = FakePollable()
        for first in ("pause", "resume", "detach"):
            for second in ("pause", "resume", "detach"):
                attachment = self.attach(fake, None)
                for name in (first, first, second, second):
                    getattr(attachment, name)()
                detached = "detach" in (first, second)
                assert attachment.attached is not detached
                watched = not detached and second == "resume"
                before = len(fake.polls)
                fake.ready()
                self.run(seconds=0.03, until=polled(fake, times=before + watched))
                assert len(fake.polls) - before == watched, (first, second)
                if not watched:
                    attachment.resume()
                    self.run(seconds=0.03, until=polled(fake, times=before + (not detached)))
                    assert len(fake.polls) - before == (not detached), (first, second)
                if fake.work:
                    fake.poll(None)
                attachment.detach()
                assert fake.attachments == set()
        fake.close()

    def test_second_attachment_to_the_same_loop(self) -> None:
        """It is refused, also while the first is paused, and changes nothing.

        Behind a detach the next one is served, whatever is done with the first.
        """
        server, ctx = self.make_server()
        first = self.attach(server, ctx)
        self._refused(server)
        self.run(self.asking(server, 3))
        first.pause()
        self._refused(server)
        first.resume()
        self.run(self.asking(server, 3))
        first.detach()
        second = self.attach(server, ctx)
        for _ in range(2):
            first.resume()
            first.pause()
            first.detach()
        self._refused(server)
        self.run(self.asking(server, 3))
        assert server.attachments == {second}
        assert ctx.log == [0, 1, 2] * 3

    def _refused(self, server: Server[Any]) -> None:
        before = set(server.attachments)
        try:
            self.attach(server, Context())
        except UsageError as error:
            told = str(error)
        else:
            raise AssertionError("it was attached a second time")
        assert "attached to this loop already" in told
        assert server.attachments == before

    def test_attached_again_after_the_loop_has_ended(self) -> None:
        """Nobody detached it. The next loop serves, and nothing is left of the last one.

        Where it is the same loop that goes on (a default one), the attachment still serves.
        """
        server, ctx = self.make_server()
        for _ in range(3):
            try:
                self.attach(server, ctx)
            except UsageError:
                assert server.attachments, "nobody is attached"
            self.run(self.asking(server, 3))
            if self.can_end:
                assert len(server.attachments) == 1, "attachments of loops that have ended pile up"
            self.close_loop()
            self.open_loop()
        assert ctx.log == [0, 1, 2] * 3

    def test_callback_that_calls_its_own_server(self) -> None:
        """The loop stands still meanwhile: it is told so at once. From a thread it is a call."""
        if not self.tells_callbacks:
            raise does_not_apply("it can't be known that a callback runs inside the loop")
        server, ctx = self.make_server()
        self.attach(server, ctx)
        told: list[str] = []
        client = self.open.enter_context(Client(server.address, timeout=PATIENCE))

        def call() -> None:
            began = time.monotonic()
            try:
                client.call(Echo(-1))
            except UsageError as error:
                told.append(str(error))
            assert time.monotonic() - began < PATIENCE / 2, "it has waited"

        self.call_later(0, call)
        self.run(self.asking(server), until=lambda: told)
        assert "would wait for itself" in told[0]
        self.run(lambda: client.notify(Echo(7)), until=lambda: len(ctx.log) > 10)
        assert ctx.log == [*range(10), 7]

    def test_loop_sleeps_beside_what_was_taken_out(self) -> None:
        """Paused or detached, and readable all the time: the loop is not told any more."""
        fake = FakePollable()
        attachment = self.attach(fake, None)
        self.run(seconds=0.02)  # some loops tell the kernel of a descriptor only when they run
        idle = self._processor_time(0.5)
        fake.ready()
        for take in (attachment.pause, attachment.detach):
            take()
            assert self._processor_time(0.5) < idle + 0.05, "it spins"
        assert fake.polls == []
        fake.close()

    def _processor_time(self, seconds: float) -> float:
        """Run the loop for a time; return for how many seconds it kept the processor busy."""
        before = time.process_time()
        self.run(seconds=seconds)
        return time.process_time() - before

    def test_taken_out_while_its_turn_waits(self) -> None:
        """Two are ready in one look of the loop; the first to be polled takes the other out."""
        takes: list[Callable[[FakePollable, Attachment], None]] = [
            lambda _, attachment: attachment.pause(),
            lambda _, attachment: attachment.detach(),
            lambda fake, _: fake.close(),
        ]
        for take in takes:
            one, two = FakePollable(), FakePollable()
            one.on_poll = functools.partial(take, two, self.attach(two, None))
            two.on_poll = functools.partial(take, one, self.attach(one, None))
            one.ready()
            two.ready()
            self.run(seconds=0.03, until=polled(one, two))
            assert len(one.polls) + len(two.polls) == 1
            one.close()
            two.close()
        if self.reports_errors:
            assert self.reported() == []

    def test_attachment_as_a_context_manager(self) -> None:
        """It detaches at the end, and not the pollable's end."""
        server, ctx = self.make_server()
        with self.attach(server, ctx) as attachment:
            self.run(self.asking(server))
        assert not attachment.attached
        assert not server.closed

    def test_every_reference_forgotten(self) -> None:
        """The pollable keeps its attachment, and the loop both."""
        fake = FakePollable()
        forgotten = weakref.ref(fake)
        self.attach(fake, None)
        fake.ready()
        del fake
        gc.collect()
        found = forgotten()
        assert found is not None, "nobody holds it"
        del found
        self.run(until=lambda: (found := forgotten()) is None or found.polls)
        found = forgotten()
        assert found is not None
        assert len(found.polls) == 1
        found.close()

    def test_new_servers_on_the_same_descriptor_number(self) -> None:
        """100 times: closed without a word to the attachment, and the next one is served."""
        numbers = set()
        for _ in range(100):
            server, ctx = self.make_server()
            attachment = self.attach(server, ctx)
            numbers.add(server.fileno())
            with Client(server.address, timeout=PATIENCE) as client:
                ctx.do = self.stop_loop
                client.notify(Do())
                self.run_loop()
            server.close()
            assert not attachment.attached
        assert len(numbers) < 50, "the numbers are used again"

    def test_descriptor_above_1023(self) -> None:
        """Loops around select(2) get a low copy."""
        if not self.takes_high_descriptors:
            raise does_not_apply("the loop takes none, and no copy")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 2000), hard), hard))
        with ExitStack() as stack:
            stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
            kept = self._holes(stack)
            server, ctx = self.make_server()
            assert server.fileno() > 1023
            for fd in kept:
                os.close(fd)
            attachment = self.attach(server, ctx)
            self.run(self.asking(server))
            attachment.pause()
            before = len(os.listdir("/dev/fd"))
            for _ in range(3):
                attachment.resume()
                attachment.pause()
            assert len(os.listdir("/dev/fd")) == before, "a copy was lost"
            attachment.resume()
            self.run(self.asking(server))
            server.close()

    @staticmethod
    def _holes(stack: ExitStack) -> list[int]:
        """Use up the descriptors below 1,024; return some to be freed again."""
        used: list[int] = []
        while not used or used[-1] < 1024:
            used.append(os.open(os.devnull, os.O_RDONLY))
        for fd in used[20:]:
            stack.callback(os.close, fd)
        return used[:20]

    def test_server_closed_by_the_command_of_another(self) -> None:
        """Both were ready at once: whoever is served first closes the other one."""
        for _ in range(5):
            servers = [self.make_server(), self.make_server()]
            attachments = [self.attach(server, ctx) for server, ctx in servers]
            for (_, ctx), (other, _) in (servers, servers[::-1]):
                ctx.do = other.close
            with ExitStack() as stack:
                for server, _ in servers:
                    client = Client(server.address, timeout=PATIENCE)
                    stack.enter_context(client).notify(Do())
                self.run(seconds=0.03, until=functools.partial(any_detached, attachments))
            assert sorted(server.closed for server, _ in servers) == [False, True]
            for (server, _), attachment in zip(servers, attachments, strict=True):
                assert attachment.attached is not server.closed
                server.close()

    def test_two_servers_in_one_loop(self) -> None:
        """Each has its own context."""
        (first, one), (second, two) = self.make_server(), self.make_server()
        self.attach(first, one)
        self.attach(second, two)
        self.run(self.asking(first, 5), self.asking(second, 7))
        assert (one.log, two.log) == (list(range(5)), list(range(7)))

    def test_fork_in_the_host(self) -> None:
        """The child ends; the parent's loop is not deaf, and its socket is there."""
        if not self.survives_fork:
            raise does_not_apply("a process with this loop can't fork and go on")
        server, ctx = self.make_server()
        self.attach(server, ctx)
        children: list[int] = []

        def fork() -> None:
            pid = os.fork()
            if not pid:
                os._exit(0 if server.attachments == set() and server.closed else 1)
            children.append(pid)

        ctx.do = fork
        with Client(server.address, timeout=PATIENCE) as client:
            client.notify(Do())
            self.run(until=lambda: children)
        assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0]
        self.run(self.asking(server))

    def test_loop_stopped_and_started_again(self) -> None:
        """The attachment outlives the run of the loop."""
        server, ctx = self.make_server()
        self.attach(server, ctx)
        for _ in range(3):
            self.run(self.asking(server, 3))
        assert ctx.log == [0, 1, 2] * 3

    def test_loop_that_ends_before_the_server_is_closed(self) -> None:
        """The order in which careless programs end."""
        server, ctx = self.make_server()
        attachment = self.attach(server, ctx)
        self.run(self.asking(server))
        self.close_loop()
        attachment.pause()
        attachment.detach()
        server.close()
        assert not attachment.attached

    def test_server_that_is_closed_while_a_call_waits(self) -> None:
        """It is told; the loop goes on."""
        server, ctx = self.make_server()
        attachment = self.attach(server, ctx)
        attachment.pause()

        def ask() -> None:
            with Client(server.address, timeout=PATIENCE) as client:
                try:
                    client.call(Echo(1))
                except (ShuttingDown, CommandError):
                    return
                raise AssertionError("it was answered")

        self.call_later(0.1, server.close)
        self.run(ask)
