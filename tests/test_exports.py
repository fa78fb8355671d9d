"""The public names: what `__all__` says is what there is, both ways."""

from __future__ import annotations

import inspect

import pytest

import ipcpoll


def test_all_is_what_there_is():
    for name in ipcpoll.__all__:
        getattr(ipcpoll, name)  # some are loaded when they are first used
    modules = {name for name, value in vars(ipcpoll).items() if inspect.ismodule(value)}
    public = {name for name in vars(ipcpoll) if not name.startswith("_")} - modules
    assert public == {*ipcpoll.__all__}
    assert len(public) == len(ipcpoll.__all__)
    assert public <= {*dir(ipcpoll)}


def test_unknown_name_is_said_as_python_says_it():
    with pytest.raises(AttributeError, match=r"^module 'ipcpoll' has no attribute 'Sever'"):
        ipcpoll.Sever  # noqa: B018


def test_every_public_callable_has_a_docstring():
    for name in ipcpoll.__all__:
        thing = getattr(ipcpoll, name)
        assert inspect.getdoc(thing), name
        if inspect.isclass(thing):
            for method, value in vars(thing).items():
                if not method.startswith("_") and callable(value):
                    assert inspect.getdoc(value), f"{name}.{method}"


def test_error_tree_is_the_one_in_the_docstring():
    from ipcpoll import errors

    drawn = {}
    path: list[str] = []
    for line in inspect.getdoc(errors).splitlines():
        stripped = line.lstrip(" │├└─")
        indent = len(line) - len(stripped)
        word = stripped.split()[0] if stripped else ""
        cls = getattr(errors, word, None)
        if inspect.isclass(cls) and issubclass(cls, errors.IpcError):
            path = [*path[: (indent - 4) // 3], word]
            drawn[word] = path[-2] if len(path) > 1 else None
    assert set(drawn) == {name for name in ipcpoll.__all__ if name in vars(errors)}
    for name, parent in drawn.items():
        assert parent is None or issubclass(getattr(errors, name), getattr(errors, parent))
    assert drawn["StaleSocket"] == "NotRunning"
    assert drawn["Busy"] == "CommandError"
