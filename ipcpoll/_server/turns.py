"""One turn of one client: a frame is taken, its call is run, and its reply waits to be sent.

What is promised:

* A turn takes one frame at most, and reads twice at most.
* A call is run once, or refused before it is run. What it raises, but for KeyboardInterrupt and the
  like, is its client's error; after one of those the client is told, and its connection closed.
* A connection is left where it belongs: in the row, waiting, or at its end (`rest`).

Whose turn it is is decided in `round`.
"""

from __future__ import annotations

from typing import Any

from .._schema.commands import CommandSet
from .._system.hub import Hub
from .._system.log import Log
from .._wire.messages import Call, Cancel
from ..errors import Busy, CommandError, InternalError, WireError, error_from_wire
from ..limits import Limits
from . import replies
from .caller import reset_caller, set_caller
from .clients import Clients
from .connection import ServerConnection
from .jobs import Job, Jobs
from .running import Running


class Turns:
    """What the clients of one server do in their turns."""

    def __init__(
        self,
        hub: Hub,
        clients: Clients,
        jobs: Jobs,
        commands: CommandSet,
        limits: Limits,
        log: Log,
        running: Running,
    ) -> None:
        self._running = running
        self._hub = hub
        self._wakeup = hub.wakeup
        self._clients = clients
        self._jobs = jobs
        self._commands = commands
        self._most_jobs = limits.max_in_flight
        self._answers_joined = limits.answers_joined
        self._log = log
        self._row = clients.row
        self._dirty = clients.dirty
        self._counts = clients.counts

    def take(self, connection: ServerConnection, ctx: Any) -> bool:
        """Give one connection its turn; return whether it had a frame."""
        if connection.readable and connection.can_read:
            more = self.receive(connection)
            if more and connection.can_run:
                self.receive(connection)  # the cancel may stand behind what one read takes
        if not connection.can_run:
            return False
        try:
            request = connection.protocol.next_request()
        except WireError as fault:
            self._answer_fault(connection, fault)
            return True
        connection.finished_a_frame = True
        if type(request) is Call:
            self._serve(connection, request, ctx)
        elif connection.jobs and type(request) is Cancel:
            self._cancel(connection, request.call_id)
        return True

    def receive(self, connection: ServerConnection) -> bool:
        """Read once; return whether there may be more."""
        connection.receive(self._hub.clock())
        return connection.readable and connection.can_read

    def rest(self, connection: ServerConnection) -> None:
        """After something was done for a connection: back into the row, or wait, or end."""
        if self._clients.closed:  # there is no row any more
            return
        if connection.accounted != connection.unsent + connection.protocol.bytes_waiting:
            self._clients.account(connection)
            if connection.closed:
                return
        if connection.jobs:
            if connection.hung_up:
                self._jobs.forsake(connection)
            elif connection in self._jobs.parked:
                self._jobs.unpark(connection)
        if connection.has_work:
            self._row[connection] = None  # at the end; one that is in keeps its place
        elif (connection.ended or connection.hung_up) and connection.is_over:
            self._clients.drop(connection)
            return
        if connection.muted and not connection.busy and connection.can_read:
            connection.unmute()

    def _serve(self, connection: ServerConnection, call: Call, ctx: Any) -> None:
        """Run one call and queue its reply."""
        command_type = call.command_type
        if command_type is None or connection.hung_up or not command_type.is_plain:
            refusal = self._why_not_run(connection, call)
            if refusal is not None:
                self._reply(
                    connection, replies.reply_error(call, refusal, connection.protocol, self._log)
                )
                return
        if self._row or self._dirty:
            self._wakeup.signal()  # its command may open a main loop that would not find out
        reply = self.run(connection, call, ctx)
        if self._clients.closed or connection.hung_up:
            self.finish(connection, reply)
        elif reply is not None:
            connection.queue(reply)
            if connection.answers_waiting >= self._answers_joined:
                connection.flush()
            else:
                self._dirty[connection] = None

    def run(self, connection: ServerConnection, call: Call, ctx: Any) -> bytes | None:
        """Run one call and return its reply."""
        before = set_caller(connection)
        try:
            connection.busy = self._running.depth
            reply = replies.run_call(
                call, ctx, self._commands, connection.protocol, self._log, self._running
            )
            if isinstance(reply, replies.PromisedAnswer):
                reply = self._jobs.begin(connection, call, reply)
        except BaseException as error:  # KeyboardInterrupt, SystemExit
            self._end_interrupted(connection, call, error)
            raise
        finally:
            connection.busy = 0
            reset_caller(before)
        return reply

    def finish(self, connection: ServerConnection, reply: bytes | None) -> None:
        """Queue a reply, and end the connection if its command has closed the server."""
        self._reply(connection, reply)
        self._end_if_closed(connection)

    def deliver(self, connection: ServerConnection, frames: list[bytes]) -> None:
        """Send what a call has made that goes on although the server has closed."""
        try:
            self.reply_all(connection, frames)
            connection.flush()
            self._end_if_closed(connection)
        except BaseException:  # KeyboardInterrupt, SystemExit: nothing comes after it
            self._clients.drop(connection)
            raise

    def _end_if_closed(self, connection: ServerConnection) -> None:
        """Once the server has closed: end a connection that nothing goes on for any more."""
        if self._clients.closed and not (connection.closed or connection.busy or connection.jobs):
            self._clients.say_farewell(connection)

    def _cancel(self, connection: ServerConnection, call_id: int) -> None:
        """End a late call that its client has cancelled."""
        self._signal_nested()
        depth = self._running.depth
        try:
            connection.busy = depth  # what its work does at its end may poll, or close
            frames = self._jobs.cancel(connection, call_id, depth)
        finally:
            connection.busy = 0
        self.reply_all(connection, frames)
        self._end_if_closed(connection)

    def advance(self, job: Job) -> bool:
        """Give a late call its turn; return whether it had something to do."""
        connection = job.connection
        if connection is None:
            del self._row[job]
            if job.on_the_stack:
                return False
            self._signal_nested()
            return self._jobs.advance(job, self._running.depth) is not None
        held, busy = connection.in_hand, connection.busy  # a command of its own may be running
        connection.in_hand = True
        del self._row[job]
        took = False
        if job.end is None and not job.may_go_on:
            self._jobs.park(job)
        elif not job.on_the_stack:
            self._signal_nested()
            try:
                connection.busy = busy or self._running.depth
                frames = self._jobs.advance(job, self._running.depth)
            except BaseException as error:  # KeyboardInterrupt, SystemExit
                self._end_interrupted(connection, job.call, error)
                raise
            finally:
                connection.busy = busy
            took = frames is not None
            self.reply_all(connection, frames or [])
            if self._clients.closed:
                self._end_if_closed(connection)
            elif not connection.closed:
                self.rest(connection)
        connection.in_hand = held
        return took

    def _signal_nested(self) -> None:
        """Let a main loop that a command may open find out that there is work."""
        if self._row or self._dirty:
            self._wakeup.signal()

    def reply_all(self, connection: ServerConnection, frames: list[bytes]) -> None:
        for frame in frames:
            self._reply(connection, frame)

    def _why_not_run(self, connection: ServerConnection, call: Call) -> CommandError | None:
        """Return why a call is not run, None if it is. A notification always is."""
        most = self._most_jobs
        job = connection.jobs if call.call_id is not None else self._jobs.notifications
        if job and len(job) >= most and self._commands.answers_later(call.name):
            return Busy(f"{most} calls are in flight that are answered later, which is the limit")
        if call.call_id is None:
            return None
        if connection.hung_up:
            # Whoever gave up and tries again must not have it run twice.
            self._counts["dropped"] += 1
            return replies.ABANDONED
        waited = 0.0 if call.timeout is None else self._hub.clock() - call.arrived
        return replies.cancelled_before_its_turn(call, waited)

    def _reply(self, connection: ServerConnection, frame: bytes | None) -> None:
        """Queue a reply; it is sent at the end of the poll, or sooner when many wait."""
        if frame is None or connection.closed or connection.hung_up:
            return
        connection.queue(frame)
        if connection.answers_waiting >= self._answers_joined:
            connection.flush()
        elif not self._clients.closed:
            self._dirty[connection] = None

    def _answer_fault(self, connection: ServerConnection, fault: WireError) -> None:
        """Answer a frame that is no request. The connection lives on where the framing is whole."""
        self._counts["faults"] += 1
        self._log.warning(f"fault {fault.code}", f"a client sent a bad frame: {fault.message}")
        if fault.answerable and connection.protocol.can_send:
            error = error_from_wire(fault.code, fault.message, None)
            self._reply(connection, connection.protocol.error(fault.call_id, error))
        if fault.fatal:
            connection.discard_input()
            connection.end()

    def _end_interrupted(
        self, connection: ServerConnection, call: Call, error: BaseException
    ) -> None:
        """Tell the caller of an interrupted command, and close its connection."""
        name = type(error).__name__
        self._log.warning("interrupted", f"{name} in the command {call.name}; its client is closed")
        if not connection.closed:
            if call.call_id in connection.protocol.calls:  # else its answer was being made
                sentence = InternalError(f"{call.name} was interrupted by {name}")
                self._reply(
                    connection, replies.reply_error(call, sentence, connection.protocol, self._log)
                )
                connection.flush()
            self._clients.drop(connection)

    def send_answers(self) -> None:
        for connection in list(self._dirty):
            if connection.closed:  # an earlier one made room
                continue
            if connection.in_hand and not connection.busy:  # interrupted, and not yet dropped
                continue
            held = connection.in_hand
            connection.in_hand = True
            self.send_answers_of(connection)
            connection.in_hand = held

    def send_answers_of(self, connection: ServerConnection) -> None:
        if connection in self._dirty:
            del self._dirty[connection]
            connection.flush()
            self.rest(connection)
