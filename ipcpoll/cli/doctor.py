"""`ipcpoll doctor [APP]`: each thing that can be wrong, checked in order, and what to do."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Final, NamedTuple

import click

import ipcpoll

from .. import programs
from ..programs import QUESTION, Program, State
from . import output
from .durations import MOST_FOR_ALL
from .exits import Exit, Verdict, go_on, verdict
from .main import release, settings, verb
from .text import escaped, shown


class Check(NamedTuple):
    """One thing that was checked."""

    what: str
    is_well: bool
    says: str
    code: Exit = Exit.DONE
    """How the command ends if this is the first that is not well."""


@verb("doctor")
@click.argument("app", required=False)
@click.pass_context
def command(context: click.Context, app: str | None) -> int:
    """Check in order each thing that can be wrong, and say what to do.

    Without APP it checks what all programs need, and each program of this user that has a name.
    With APP, a name or a path, it checks all of that one, down to its answer. The exit code is that
    of the first thing that is wrong.
    """
    asked = settings(context)
    checks: list[Check] = []
    for check in checked(app, asked.timeout):
        checks.append(check)
        if not asked.json:
            say(check)
    if asked.json:
        output.document(
            [{"check": each.what, "well": each.is_well, "says": each.says} for each in checks]
        )
    return next((each.code for each in checks if not each.is_well), Exit.DONE)


def say(check: Check) -> None:
    """Print one check, at once: the next may take its time."""
    sign = "ok" if check.is_well else "WRONG"
    if output.is_terminal():
        if "NO_COLOR" not in os.environ:
            sign = f"\x1b[{'32' if check.is_well else '31'}m{sign}\x1b[0m"
        print(f"{sign}  {check.what}: {shown(check.says, 4000)}", flush=True)
    else:
        print(f"{sign}\t{check.what}\t{shown(check.says, 4000)}", flush=True)


def checked(app: str | None, timeout: float) -> Iterator[Check]:
    """Check one thing after the other; what needs one that is wrong is not checked."""
    yield _libraries()
    if app is None:
        yield from _directories()
        yield from map(_of_state, programs.find(timeout=min(timeout, MOST_FOR_ALL)))
    else:
        yield from _program(app, timeout)


def _libraries() -> Check:
    python = ".".join(map(str, sys.version_info[:3]))
    names = ", ".join(f"{name} {release(name)}" for name in ("ipcpoll", "cbor2", "msgspec"))
    try:
        ipcpoll.Client("any").close()  # proves what it needs of them
    except ipcpoll.UnsafeDependency as error:
        return Check("libraries", False, str(error), Exit.REFUSED)
    return Check("libraries", True, f"Python {python}, {names}")


def _directories() -> Iterator[Check]:
    variable = os.environ.get("XDG_RUNTIME_DIR")
    found = programs.directories()
    first = found[0][0]
    if variable and os.path.dirname(first) != os.path.normpath(variable):
        reason = programs.why_unsafe(variable) or "is not there"
        yield Check(
            "XDG_RUNTIME_DIR",
            False,
            f"{escaped(variable)} {reason}, so names lead to {escaped(first)}; programs that see "
            "another one are not found: unset it, or mend that directory",
            Exit.NOT_ALLOWED,
        )
    for directory, fault in found:
        if fault is not None:
            yield Check(
                "directory",
                False,
                f"{escaped(directory)} {fault}: no name that leads there is used; "
                "remove it, or chmod go-rwx it",
                Exit.NOT_ALLOWED,
            )
        elif os.path.isdir(directory):
            yield Check("directory", True, f"{escaped(directory)} is this user's alone")
        else:
            says = f"{escaped(directory)} is not there yet: the first program makes it"
            yield Check("directory", True, says)


def _of_state(program: Program) -> Check:
    """Return what is to be said of one of many."""
    name = f"program {escaped(program.name)}"
    more = f"; ipcpoll doctor {escaped(program.name)} says more"
    match program.state:
        case State.RUNNING:
            return Check(name, True, f"pid {program.pid} answers")
        case State.STOPPED:
            return _stopped(name, program)
        case State.STALE:
            says = "it ended and left its socket behind; start it again, that clears it away"
            return Check(name, False, says, Exit.STALE)
        case State.ANOTHER_USERS:
            return Check(name, False, "it is another user's" + more, Exit.NOT_ALLOWED)
        case State.NOT_READING:
            return Check(name, False, "it lives and reads nothing" + more, Exit.NOT_READING)
        case State.NOT_ANSWERING:
            says = "it reads and does not answer" + more
            return Check(name, False, says, Exit.NOT_ANSWERING)


def _stopped(what: str, program: Program) -> Check:
    says = f"pid {program.pid} is stopped (by a signal or a debugger); {go_on(program.pid)}"
    return Check(what, False, says, Exit.NOT_READING)


_STEPS: Final = (
    ("socket", Exit.NOT_RUNNING, "it is there"),
    ("listener", Exit.STALE, "somebody listens"),
    ("user", Exit.NOT_ALLOWED, "it is a process of this user"),
    ("reading", Exit.NOT_READING, "it reads what is sent"),
    ("answer", Exit.NOT_ANSWERING, ""),
)
"""What a question to a program goes through, and the code of what fails there."""


def _program(app: str, timeout: float) -> Iterator[Check]:
    try:
        client = ipcpoll.Client(app, timeout=timeout)
    except ValueError as error:
        yield Check("name", False, str(error), Exit.USAGE)
        return
    with client:
        yield Check("name", True, f"it leads to {escaped(client.address)}")
        program = programs.look(app, timeout=0)
        if program is not None and program.state is State.STOPPED:
            yield from _until(Exit.NOT_READING)
            yield _stopped("reading", program)
            return
        failed = _failure(client)
        if failed is None:
            yield from _until(None)
            yield Check("answer", True, _answered(app, timeout))
            return
        yield from _until(failed.code)
        what = next((step for step, code, _ in _STEPS if code is failed.code), "answer")
        yield Check(what, False, failed.sentence, failed.code)


def _until(code: Exit | None) -> Iterator[Check]:
    """Give the steps that went well, before the one that failed with this code."""
    for step, fails, says in _STEPS[:-1]:
        if fails is code:
            return
        yield Check(step, True, says)


def _failure(client: ipcpoll.Client) -> Verdict | None:
    """Ask, and return what went wrong."""
    try:
        client.request(*QUESTION)
    except ipcpoll.ShuttingDown as error:
        return verdict(error)
    except ipcpoll.CommandError:  # it has no built-in commands, or no room: it answers
        return None
    except (ipcpoll.IpcError, OSError) as error:
        failed = verdict(error)
        if failed is None:
            raise
        return failed
    return None


def _answered(app: str, timeout: float) -> str:
    program = programs.look(app, timeout=timeout)
    if program is None or program.seconds is None:
        return "it answers"
    since = f", since {output.moment(program.since)}" if program.since else ""
    called = f" ({escaped(program.command)})" if program.command else ""
    return f"pid {program.pid}{called}{since} answers, within {program.seconds * 1000:.1f} ms"
