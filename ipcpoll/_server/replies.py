"""From one call to its reply: find the command, run it, encode what it returned. No I/O.

`run` returns the frame to send (None for a notification), or what is to be answered later. It
raises nothing but KeyboardInterrupt and SystemExit: everything else that a command does wrong is an
error for the client and a line with the traceback in the log.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from .._schema.commands import CommandSet, CommandType
from .._schema.plain import plain_value
from .._system.log import Log, describe
from .._wire.messages import Call
from .._wire.protocol import ServerProtocol
from ..errors import (
    TOO_LARGE,
    Cancelled,
    CommandError,
    FrameTooLarge,
    InternalError,
    UnknownCommand,
    WireError,
    as_begun,
    error_from_wire,
)
from .running import Running

ABANDONED: Final = Cancelled("the client went away before the call had its turn")
"""Why the call of a client that has gone is not run. Nobody is there to read it."""

_NAME_SHOWN: Final = 80  # characters of a name that a client sent
_FITS_ALWAYS: Final = 200  # characters of a sentence that is well within `LEAST_ERROR`


class PromisedAnswer(NamedTuple):
    """What `process` has returned, where that is not the answer yet."""

    command: CommandType
    promised: Any


def run_call(
    call: Call,
    ctx: Any,
    commands: CommandSet,
    protocol: ServerProtocol,
    log: Log,
    running: Running,
) -> bytes | PromisedAnswer | None:
    """Run the call's command with `ctx` and return its reply, or what it has promised."""
    try:
        command_type, command = call.command_type, call.command
        if command is None:
            if command_type is None:
                command_type = commands[call.name]
            command = command_type.bind(call.fields)
        running.own = False
        try:
            value = command.process(ctx)
        finally:
            running.own = True
    except WireError as error:
        return reply_error(call, error_from_wire(error.code, error.message, None), protocol, log)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        return reply_raised(call, error, protocol, log)
    if not command_type.is_plain:
        return PromisedAnswer(command_type, value)
    return reply_with(call, command_type, value, protocol, log)


def reply_with(
    call: Call, command_type: CommandType, value: Any, protocol: ServerProtocol, log: Log
) -> bytes | None:
    """Return the reply that ends a call with its answer, or says why it can't be sent."""
    call_id = call.call_id
    if call_id is None:
        return None
    if not protocol.can_send:
        protocol.forget(call_id)  # its client went away while it ran
        return None
    try:
        return protocol.answer(call_id, command_type.encode_answer(value))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        return reply_unfit(call, error, protocol, log)


def reply_raised(
    call: Call, error: BaseException, protocol: ServerProtocol | None, log: Log
) -> bytes | None:
    """Return the reply to a call whose command raised."""
    if isinstance(error, CommandError):
        return reply_error(call, as_begun(error), protocol, log)
    log.exception(f"raised {call.name}", f"the command {call.name} raised", error)
    return reply_error(call, InternalError(f"{call.name} raised {describe(error)}"), protocol, log)


def reply_unfit(
    call: Call, error: BaseException, protocol: ServerProtocol, log: Log, what: str = "answer"
) -> bytes | None:
    """Return the reply to a call whose answer, or a piece of it, can't be sent."""
    sentence = f"the {what} of {call.name} can't be sent"
    if isinstance(error, FrameTooLarge):
        log.warning(f"too large {call.name}", f"{sentence}: {error}")
        too_large = CommandError(TOO_LARGE, f"the {what} of {call.name}: {error}")
        return reply_error(call, too_large, protocol, log)
    log.exception(f"{what} {call.name}", sentence, error)
    sentence = f"the {what} of {call.name} is not what its annotation promises: {describe(error)}"
    return reply_error(call, InternalError(sentence), protocol, log)


def reply_error(
    call: Call, error: CommandError, protocol: ServerProtocol | None, log: Log
) -> bytes | None:
    """Return the reply that ends a call with an error; a notification's goes to the log.

    `protocol` None: its client has gone.
    """
    if call.call_id is None or protocol is None:
        # A name that no command has is no kind of its own: the client could make up any number.
        kind = error.CODE if isinstance(error, UnknownCommand) else call.name
        name = call.name[:_NAME_SHOWN]
        log.warning(f"notification {kind}", f"the notification {name} failed: {describe(error)}")
        return None
    if not protocol.can_send:
        protocol.forget(call.call_id)
        return None
    try:
        data = getattr(error, "data", None)  # whoever derives from it may have forgotten that
        if data is not None:
            plain_value(data, "data")
        return protocol.error(call.call_id, error)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as problem:
        # Its data can't be carried, or is too large, or its code is no text.
        log.exception(f"error {call.name}", f"the error of {call.name} can't be sent", problem)
        if getattr(error, "data", None) is not None:
            try:
                return protocol.error(call.call_id, _without_data(error, problem))
            except Exception:
                pass  # it is the code or the message as well
        name = call.name[:_NAME_SHOWN]
        sentence = f"{name} refused, and why can't be sent: {describe(problem)}"
        return protocol.error(call.call_id, InternalError(sentence[:_FITS_ALWAYS]))


def _without_data(error: CommandError, problem: BaseException) -> CommandError:
    """Return an error whose data can't be sent: by its code the client knows it all the same."""
    why = str(problem)[:_FITS_ALWAYS]
    return CommandError(error.code, f"{error.message} (its data can't be sent: {why})")


def cancelled_before_its_turn(call: Call, waited: float) -> Cancelled | None:
    """Return why a call is not to be run any more, None if it is. `waited` is in seconds."""
    if call.cancelled:
        return Cancelled("the call was cancelled before its turn")
    if call.timeout is not None and waited > call.timeout:
        return Cancelled(f"the call's time limit of {call.timeout:g} s passed before its turn")
    return None
