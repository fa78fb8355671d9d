"""The tree of errors: what each one is, and that it survives a pickle."""

import builtins
import copy
import pickle
import re
import textwrap

import pytest

import ipcpoll
from ipcpoll import errors
from ipcpoll.errors import (
    Busy,
    Cancelled,
    CommandError,
    InternalError,
    InvalidArguments,
    IpcError,
    ShuttingDown,
    UnknownCommand,
    WireError,
    error_from_wire,
)

OWNERS = {
    "unknown-command": UnknownCommand,
    "invalid-arguments": InvalidArguments,
    "internal": InternalError,
    "cancelled": Cancelled,
    "shutting-down": ShuttingDown,
    "busy": Busy,
}


def tree_in_the_docstring():
    """Give (name, parent, builtin or None) for each line of the picture."""
    picture = re.search(r"::\n\n(.*?)\n\n", errors.__doc__, re.DOTALL)[1]
    above = []
    for line in textwrap.dedent(picture).splitlines():
        indent, name, builtin = re.match(r"([│├└─ ]*)(\w+)(?: \((\w+)\))?", line).groups()
        depth = len(indent) // 3
        del above[depth:]
        yield name, above[-1] if above else "Exception", builtin
        above.append(name)


class NoRoom(errors.DeclaredError):
    CODE = "no-room"


def concrete_errors():
    for name, _, _ in tree_in_the_docstring():
        cls = getattr(errors, name)
        if cls is errors.DeclaredError:
            cls = NoRoom  # itself it is only a base
        if issubclass(cls, CommandError):
            made = cls("no-level", "there is no level 9", [9]) if cls is CommandError else cls("x")
        else:
            made = cls("what happened")
        yield pytest.param(made, id=name)


@pytest.mark.parametrize(("name", "parent", "builtin"), list(tree_in_the_docstring()))
def test_class_stands_where_the_docstring_draws_it(name, parent, builtin):
    cls = getattr(errors, name)
    parents = [base for base in cls.__mro__[1:] if not base.__name__.startswith("_")]
    assert parents[0].__name__ == parent
    if builtin is not None:
        assert issubclass(cls, getattr(builtins, builtin))


def test_docstring_draws_every_public_error():
    drawn = {name for name, _, _ in tree_in_the_docstring()}
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, IpcError) and name[0] != "_"
    }
    assert drawn == defined
    assert drawn - {"IpcError"} < set(ipcpoll.__all__)


@pytest.mark.parametrize("error", list(concrete_errors()))
@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_error_survives_a_copy(error, again):
    twin = again(error)
    assert type(twin) is type(error)
    assert twin.args == error.args
    assert str(twin) == str(error)
    assert vars(twin) == vars(error)


def test_command_error_shows_its_message_and_code():
    error = CommandError("no-level", "there is no level 9", {"most": 8})
    assert str(error) == "there is no level 9 [no-level]"
    assert (error.code, error.message, error.data) == (
        "no-level",
        "there is no level 9",
        {"most": 8},
    )
    assert CommandError("a", "b").data is None


@pytest.mark.parametrize(("code", "cls"), list(OWNERS.items()))
def test_code_of_the_library_comes_back_as_its_class(code, cls):
    error = error_from_wire(code, "why", [1])
    assert type(error) is cls
    assert (error.code, error.message, error.data) == (code, "why", [1])
    assert str(error) == f"why [{code}]"


@pytest.mark.parametrize("code", ["no-level", "malformed", "too-large", "", "Internal"])
def test_any_other_code_comes_back_as_command_error(code):
    error = error_from_wire(code, "why", None)
    assert type(error) is CommandError
    assert (error.code, error.message, error.data) == (code, "why", None)


def test_wire_error_stands_beside_the_tree():
    error = WireError("malformed", "what it was")
    assert not isinstance(error, IpcError)
    assert str(error) == error.message == "what it was"
    assert (error.code, error.call_id, error.fatal, error.answerable) == (
        "malformed",
        None,
        False,
        True,
    )
