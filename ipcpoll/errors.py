"""Every exception that ipcpoll raises, in one tree.

::

    IpcError
    ├─ UsageError (RuntimeError)          the host misused it: closed, forked child, two threads
    ├─ AlreadyRunning (OSError)           a live server owns this address; says its pid
    ├─ UnsafeAddress (PermissionError)    directory, lock or socket another user's or open
    ├─ NotRunning (ConnectionError)       no socket
    │  └─ StaleSocket                     the socket is there and nobody listens
    ├─ NotPolled (TimeoutError)           pid N is alive and has not read this call in time
    ├─ NotAnswered (TimeoutError)         it read the call and has not answered in time
    ├─ PeerGone (ConnectionError)         it closed the connection before the answer
    ├─ UntrustedPeer (PermissionError)    the server belongs to another user
    ├─ FrameTooLarge (ValueError)         over a limit, before anything was sent
    ├─ UnsafeDependency (ImportError)     cbor2 lets through what ipcpoll must refuse
    └─ CommandError                       the answer is an error: .code, .message, .data
       ├─ UnknownCommand                  unknown-command
       ├─ InvalidArguments (ValueError)   invalid-arguments
       ├─ InternalError                   internal
       ├─ Cancelled                       cancelled
       ├─ ShuttingDown                    shutting-down
       ├─ Busy                            busy
       └─ DeclaredError                   a program's own: its class has the code

Each is also the builtin that fits, so ``except TimeoutError`` works without importing ipcpoll.
A command refuses by raising `CommandError`; the client raises the same code, message and data.

`WireError` stands beside the tree: it is how the receiving modules tell each other what the
*peer* did wrong. The server answers it and the client turns it into `PeerGone`; it never
reaches a caller.
"""

from __future__ import annotations

from typing import ClassVar, Final, Self

BEGAN: Final = "began"
"""The key in an error's data that says that the call had begun."""
MALFORMED: Final = "malformed"
TOO_LARGE: Final = "too-large"


class IpcError(Exception):
    """The root of all errors of ipcpoll."""


class UsageError(IpcError, RuntimeError):
    """The program misused ipcpoll: a closed object, a forked child, two threads at once, a thread
    that would wait for itself."""


class AlreadyRunning(IpcError, OSError):
    """A live server owns this address. It was not disturbed.

    `pid` is the server's, None where it is not known. For people to read: it may be outdated.
    """

    def __init__(self, message: str, pid: int | None = None) -> None:
        super().__init__(message)
        self.pid = pid


class UnsafeAddress(IpcError, PermissionError):
    """The directory, the lock or the socket belongs to another user or is open to others."""


class NotRunning(IpcError, ConnectionError):
    """There is no socket at this address: the program does not run."""


class StaleSocket(NotRunning):
    """The socket is there and nobody listens: the program ended without tidying up."""


class NotPolled(IpcError, TimeoutError):
    """The program is alive and has not read this call within the time limit.

    Raised where that is known: the kernel says that the call is still unread, or there was no room
    for it, or for the connection. The call is cancelled: it will most likely not run.
    """


class NotAnswered(IpcError, TimeoutError):
    """The program has not answered within the time limit. It may still run the call."""


class PeerGone(IpcError, ConnectionError):
    """The program closed the connection before the answer.

    The call may have run, unless `unread` is True: then it is known that the program had not read
    it, and that it may be sent again.
    """

    def __init__(self, message: str, unread: bool = False) -> None:
        super().__init__(message)
        self.unread = unread


class UntrustedPeer(IpcError, PermissionError):
    """The server belongs to another user. Nothing was sent."""


class FrameTooLarge(IpcError, ValueError):
    """The frame is over a limit. Nothing was sent."""


class UnsafeDependency(IpcError, ImportError):
    """A library that ipcpoll stands on lets through what must be refused. Nothing was made.

    The message names the library, its version and what it let through. Another release of it
    helps.
    """


class CommandError(IpcError):
    """The answer is an error.

    A command raises it to refuse: ``raise CommandError("no-such-level", "there is no level 9")``.
    `code` is stable text for programs (an application's codes are its own words), `message` is
    one sentence for people, `data` any value that can be carried, or None for none.
    """

    code: str
    message: str
    data: object
    told_to_all: bool = False
    """Whether the server ended all calls of the connection with it; else a command, or its check,
    answered so. What a command passes on from a server that it asked itself has the same code."""

    def __init__(self, code: str, message: str, data: object = None) -> None:
        super().__init__(code, message, data)
        self.code = code
        self.message = message
        self.data = data

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]"


class _LibraryError(CommandError):
    """A `CommandError` whose code belongs to ipcpoll: made from the message alone."""

    CODE: ClassVar[str]

    def __init__(self, message: str, data: object = None) -> None:
        super().__init__(self.CODE, message, data)

    def __reduce__(self) -> tuple[object, ...]:
        # BaseException would call the class with (code, message, data).
        return type(self), (self.message, self.data)


class UnknownCommand(_LibraryError):
    """The server has no command of this name. The message names the nearest."""

    CODE = "unknown-command"


class InvalidArguments(_LibraryError, ValueError):
    """The fields do not fit the command. The message names the place."""

    CODE = "invalid-arguments"


class InternalError(_LibraryError):
    """The command failed in a way it did not foresee. The server's log has the traceback.

    Also where an answer does not fit this side's class: the message says so, and that the two sides
    seem to have different versions of it. Then the server knows nothing of it.
    """

    CODE = "internal"


class _Ended(_LibraryError):
    """The server did not wait for the call's answer; `began` says whether it had begun."""

    @property
    def began(self) -> bool:
        """Whether the call had begun, and may have run, in part or whole.

        False: it is known that nothing of it was run, so it may be sent again.
        """
        return isinstance(self.data, dict) and self.data.get(BEGAN) is True

    @classmethod
    def of_one_that_began(cls, message: str) -> Self:
        """Return the error for a call that had begun."""
        return cls(message, {BEGAN: True})


class Cancelled(_Ended):
    """The call was cancelled, or its time limit passed: before its turn, or if `began` in it."""

    CODE = "cancelled"


class ShuttingDown(_Ended):
    """The server closed before the call had its turn: it was not run. Or, if `began`, in it."""

    CODE = "shutting-down"


class Busy(_Ended):
    """The server has no room for one more: it was not run, try again later.

    Unless it `began`: then the room that its client took was needed for others.
    """

    CODE = "busy"


_BY_CODE: Final[dict[str, type[_LibraryError]]] = {
    cls.CODE: cls
    for cls in (UnknownCommand, InvalidArguments, InternalError, Cancelled, ShuttingDown, Busy)
}


_OWN_CODES: Final = frozenset({*_BY_CODE, MALFORMED, TOO_LARGE})


class DeclaredError(CommandError):
    """An error of the program's own, as a class: its code is the class attribute `CODE`.

    ::

        class QueueFull(DeclaredError):
            "The queue has no room."

            CODE = "queue-full"

    A command raises ``QueueFull("no room for 3 more", data)``. Whoever calls with a command class
    that declares it (``@ipcpoll.about(errors=(QueueFull,))``) gets a QueueFull, made without
    calling its `__init__`; whoever calls by name gets a `CommandError` with the same code, message
    and data.

    A class without `CODE` is a base for others. A code that is no text, is empty or is one of
    ipcpoll's own is a TypeError when the class is made.
    """

    CODE: ClassVar[str]

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        if "CODE" not in vars(cls):
            return
        code: object = cls.CODE
        if type(code) is not str or not code:
            raise TypeError(f"{cls.__qualname__}.CODE must be a text for programs, not {code!r}")
        if code in _OWN_CODES:
            raise TypeError(
                f"{cls.__qualname__}.CODE is `{code}`, which is one of ipcpoll's own; "
                "choose another word"
            )

    def __init__(self, message: str, data: object = None) -> None:
        if not hasattr(self, "CODE"):
            raise TypeError(f"{type(self).__qualname__} has no CODE; raise a class that has one")
        super().__init__(self.CODE, message, data)

    def __reduce__(self) -> tuple[object, ...]:
        # BaseException would call the class with (code, message, data).
        return remake, (type(self), self.code, self.message, self.data), vars(self)


def remake(cls: type[DeclaredError], code: str, message: str, data: object) -> CommandError:
    """Return an exception of this class without calling its `__init__`.

    Its `__new__` may be the program's, or that of a builtin that it inherits as well. Where that
    fails it is a plain CommandError.
    """
    try:
        error = cls.__new__(cls, code, message, data)
        error.code, error.message, error.data = code, message, data
    except Exception:
        return CommandError(code, message, data)
    return error


def as_begun(error: CommandError) -> CommandError:
    """Return what a command has raised, so that nobody takes it for a call that was not run.

    What it passes on from a server that it asked itself may say so of a call over there.
    """
    if not _is_of_one_that_ended(getattr(error, "code", None)):
        return error
    if isinstance(error.data, dict):
        data = {**error.data, BEGAN: True}
    else:
        data = {BEGAN: True} if error.data is None else {BEGAN: True, "data": error.data}
    return CommandError(error.code, error.message, data)


def _is_of_one_that_ended(code: object) -> bool:
    # A command may have put in anything; of an enum it is the text that counts.
    owner = _BY_CODE.get(str.__str__(code)) if isinstance(code, str) else None
    return owner is not None and issubclass(owner, _Ended)


def error_from_wire(code: str, message: str, data: object) -> CommandError:
    """Return the exception that a received error stands for: the class that owns the code."""
    cls = _BY_CODE.get(code)
    return CommandError(code, message, data) if cls is None else cls(message, data)


class WireError(Exception):
    """What the peer sent can't be accepted. Internal to ipcpoll; see the module's docstring.

    `call_id` is the call that it concerns, None where that could not be read. `fatal` says that
    the framing is lost and nothing more can be read from this peer. `answerable` is False for a
    notification, which is never answered.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        call_id: int | None = None,
        fatal: bool = False,
        answerable: bool = True,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.call_id = call_id
        self.fatal = fatal
        self.answerable = answerable
