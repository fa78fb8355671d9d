"""`ipcpoll ls`: the programs of this user, and what state each is in."""

from __future__ import annotations

import sys
from typing import Any, Final

import click

from .. import programs
from ..programs import Program, State
from . import output
from .durations import MOST_FOR_ALL
from .main import settings, verb
from .text import shown

COLUMNS: Final = ("NAME", "STATE", "PID", "SINCE", "COMMAND")


@verb("ls")
@click.pass_context
def command(context: click.Context) -> None:
    """List the programs of this user: NAME, STATE, PID, SINCE, COMMAND.

    Each is asked the cheapest question, all at once, and waited for 1 s at most. No lock is taken,
    and no file made.

    running: it answers. stopped: by a signal or a debugger. not reading: it lives, and takes in
    nothing. not answering: it has read the question. stale: it ended and left its socket.
    another user's: nothing was sent.
    """
    asked = settings(context)
    found = programs.find(timeout=min(asked.timeout, MOST_FOR_ALL))
    if asked.json:
        output.document([as_json(program) for program in found])
    elif found:
        output.table(COLUMNS, [row(program) for program in found], [colour(one) for one in found])
    elif output.is_terminal():
        looked = " and ".join(shown(directory) for directory, _ in programs.directories())
        print(f"no program of this user has a socket in {looked}", file=sys.stderr)


def row(program: Program) -> list[str]:
    """Return the cells of one program."""
    pid = "" if program.pid is None else str(program.pid)
    since = output.moment(program.since)
    return [program.name, program.state.value, pid, since, program.command]


def colour(program: Program) -> str:
    """Return the colour of its state."""
    return output.GOOD if program.state is State.RUNNING else output.BAD


def as_json(program: Program) -> dict[str, Any]:
    """Return what a program that reads it gets."""
    return {
        "name": program.name,
        "state": program.state.value,
        "pid": program.pid,
        "since": program.since,
        "command": program.command,
        "address": program.address,
    }
