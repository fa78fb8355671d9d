"""The verbs as a whole: what is imported, options, users, help, and how long a start takes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from harness import finish, run_python
from operating import ROOT, SERVE, kill, need_another_user, run, run_on_terminal, serving

from ipcpoll import __main__ as begins
from ipcpoll.cli import main, output, users
from ipcpoll.cli.exits import Ended, Usage

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

IMPORTED = """
import sys
sys.argv = ["ipcpoll", *sys.argv[1:]]
import ipcpoll.__main__
code = ipcpoll.__main__.main()
print(*sorted(sys.modules), file=sys.stderr)
"""


def imported(*words: str, terminal: bool = False) -> set[str]:
    """Return the modules in the process after such a run."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    how: dict[str, Any] = {"stdout": subprocess.DEVNULL}
    master, slave = os.openpty()
    if terminal:
        how["stdout"] = slave
    try:
        command = [sys.executable, "-c", IMPORTED, *words]
        done = subprocess.run(
            command, stderr=subprocess.PIPE, text=True, env=environment, check=True, **how
        )
    finally:
        os.close(master)
        os.close(slave)
    return set(done.stderr.splitlines()[-1].split())


def of_the_room(modules: set[str]) -> set[str]:
    prefix = "ipcpoll.cli."
    return {name.removeprefix(prefix) for name in modules if name.startswith(prefix)}


NEVER = {"asyncio", "prompt_toolkit", "textual", "multiprocessing", "ssl", "http", "email"}
SHARED = {"durations", "exits", "main", "text", "unfit"}


def tops(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def test_what_ls_imports_in_a_pipe(home: str) -> None:
    with serving("calc"):
        modules = imported("ls")
    assert of_the_room(modules) == {*SHARED, "ls", "output"}
    assert not tops(modules) & {*NEVER, "rich", "difflib"}
    assert "click" in modules


def test_what_ls_imports_on_a_terminal(home: str) -> None:
    with serving("calc"):
        modules = imported("ls", terminal=True)
    assert of_the_room(modules) == {*SHARED, "ls", "output"}
    assert "rich.table" in modules
    assert not tops(modules) & NEVER


def test_json_on_a_terminal_needs_no_rich(home: str) -> None:
    with serving("calc"):
        assert "rich" not in imported("ls", "-j", terminal=True)


def test_help_imports_no_verb() -> None:
    modules = imported("--help")
    assert of_the_room(modules) == SHARED
    assert "ipcpoll.programs" not in modules


def test_what_dial_imports(home: str) -> None:
    modules = imported("dial", "calc")
    assert of_the_room(modules) == {"dial", "durations", "exits", "text", "unfit"}
    assert not tops(modules) & {*NEVER, "click", "rich"}


# ---------------------------------------------------------------------------------------------
# The verbs


def test_every_verb_has_a_command() -> None:
    context = click.Context(main.GROUP)
    for name in main.GROUP.list_commands(context):
        command = main.GROUP.get_command(context, name)
        assert command is not None
        assert command.name == name


def test_help_lists_the_verbs() -> None:
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    for name, text in main.VERBS.items():
        assert re.search(rf"^  {name} +{text[:30]}", out, re.MULTILINE)


@pytest.mark.parametrize("verb", main.VERBS)
def test_each_verb_has_help(verb: str) -> None:
    code, out, err = run(verb, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: ipcpoll {verb} [OPTIONS]")


def test_without_a_verb() -> None:
    code, out, err = run()
    assert (code, out) == (2, "")
    assert err.startswith("Usage: ipcpoll")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["lss"], "ipcpoll: there is no verb 'lss'; did you mean ls?"),
        (["\x1b[2J"], "ipcpoll: there is no verb '\\x1b[2J'; ipcpoll --help lists them"),
        (
            ["ls", "--timeout", "x"],
            "ipcpoll: Invalid value for '--timeout': it must be a time like 2, 1.5s or 200ms, "
            "not 'x'; `ipcpoll ls --help` says how",
        ),
    ],
)
def test_wrong_words(words: list[str], sentence: str) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err == f"{sentence}\n"


@pytest.mark.parametrize(
    ("words", "verb"), [(["ls", "--wat"], " ls"), (["--wat"], ""), (["ls", "x"], " ls")]
)
def test_words_that_click_refuses(words: list[str], verb: str) -> None:
    """Its words and ours."""
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert re.fullmatch(rf"ipcpoll: .*{words[-1]}.*; `ipcpoll{verb} --help` says how\n", err)


def test_version() -> None:
    code, out, err = run("--version")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"ipcpoll (\d+\.\d+\S*|\(not installed\))\n", out)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], main.Settings()),
        (["-j", "--timeout", "2"], main.Settings(json=True, seconds=2.0)),
        (
            ["--timeout=1m", "--yes", "--user", "ann"],
            main.Settings(yes=True, user="ann", seconds=60),
        ),
    ],
)
@pytest.mark.parametrize("place", ["before", "behind"])
def test_options_stand_anywhere(
    words: list[str], expected: main.Settings, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[main.Settings] = []

    @main.verb("see")
    @click.pass_context
    def command(context: click.Context) -> None:
        seen.append(main.settings(context))

    monkeypatch.setitem(main.VERBS, "see", "")  # type: ignore[misc]
    module: Any = ModuleType("ipcpoll.cli.see")
    module.command = command
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(users, "become", lambda name: None)
    assert main.main([*words, "see"] if place == "before" else ["see", *words]) == 0
    assert seen == [expected]
    assert seen[0].timeout == (expected.seconds or 5.0)


def test_one_behind_the_verb_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    context = click.Context(main.GROUP, obj=main.Settings())
    for seconds in (1.0, 2.0):
        main.GROUP.params[1].callback(context, main.GROUP.params[1], str(seconds))  # type: ignore[misc]
    assert main.settings(context).timeout == 2.0


WITHOUT = """
import sys
sys.modules["{module}"] = None
sys.argv = ["ipcpoll", "{verb}"]
import ipcpoll.__main__
sys.exit(ipcpoll.__main__.main())
"""


@pytest.mark.parametrize(("verb", "code"), [("ls", 2), ("--help", 2)])
def test_without_click(verb: str, code: int) -> None:
    program = WITHOUT.format(module="click", verb=verb)
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr == (
        "ipcpoll: the command needs click and rich, which are not installed; "
        "pip install 'ipcpoll[cli]'\n"
    )


def test_ctrl_c_while_it_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(begins, "_run", interrupted)
    assert begins.main() == 130


def test_another_import_error_is_no_missing_click() -> None:
    program = WITHOUT.format(module="ipcpoll.cli.durations", verb="ls")
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr


# ---------------------------------------------------------------------------------------------
# Users

AS_NOBODY = f"import os; os.setgid(65534); os.setuid(65534)\n{SERVE}"


def test_root_becomes_the_user_before_it_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reaches the program as one of its user's, in that user's place; else it does not."""
    need_another_user()
    name = f"test-{uuid.uuid4().hex[:12]}"
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    process = run_python(AS_NOBODY, name)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        env = {"XDG_RUNTIME_DIR": "/nowhere"}
        assert f"{name}\trunning\t{process.pid}" in run("ls", "--user", "nobody", env=env).out
        assert f"{name}\trunning" in run("--user", "65534", "ls", env=env).out
        assert name not in run("ls").out
        assert run("doctor", name, "--user", "nobody").code == 0
        assert run("doctor", name).code == 3
        code, out, err = run("dial", name, "--user", "nobody", said="")
        assert (code, err) == (0, "")
        assert out.startswith(f'ipcpoll-dial 1 {{"pid": {process.pid}, "uid": 65534, "dial": ')
        code, seen = run_on_terminal("ls", "--user", "nobody")
        assert code == 0
        assert name in seen
    finally:
        kill(process)
        Path(f"/tmp/ipcpoll-65534/{name}.sock").unlink(missing_ok=True)
        Path(f"/tmp/ipcpoll-65534/{name}.sock.lock").unlink(missing_ok=True)


BECOME = """
import os, sys
from ipcpoll.cli import users
os.environ |= {"XDG_CACHE_HOME": "/root/c", "HOME": "/root", "XDG_RUNTIME_DIR": "/nowhere"}
users.become("nobody")
assert os.getresuid() == (65534,) * 3, os.getresuid()
assert os.getresgid() == (65534,) * 3, os.getresgid()
assert 0 not in os.getgroups(), os.getgroups()
assert "XDG_CACHE_HOME" not in os.environ
assert os.environ["HOME"] != "/root"
assert os.environ["USER"] == os.environ["LOGNAME"] == "nobody"
assert os.environ.get("XDG_RUNTIME_DIR", "/run/user/65534") == "/run/user/65534"
try:
    os.setuid(0)
except PermissionError:
    print("for good")
users.become("nobody")  # it is, already
try:
    users.become("root")
except users.Ended as ended:
    print(ended.code.value, ended.sentence)
"""


@AS_ROOT
def test_it_is_wholly_that_user() -> None:
    out = finish(run_python(BECOME))
    assert out == ("for good\n7 only root can become user root: sudo ipcpoll --user root …\n")


def test_user_that_is_none() -> None:
    code, out, err = run("ls", "--user", "no-such-user")
    assert (code, out) == (2, "")
    assert err == "ipcpoll: there is no user 'no-such-user' on this machine\n"
    with pytest.raises(Usage):
        users.become("9" * 30)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can become anybody")
def test_only_root_can() -> None:
    with pytest.raises(Ended, match="only root can become user root"):
        users.become("root")


# ---------------------------------------------------------------------------------------------
# Output


def test_document_on_one_line_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    output.document({"a": [1, b"\xff", float("nan")], "b": "\x1b"})
    assert capsys.readouterr().out == '{"a": [1, "/w==", "nan"], "b": "\\u001b"}\n'


def test_table_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("A", "B"), [["a\tb", ""], ["\x1b[1m", "x" * 2000]])
    first, second = capsys.readouterr().out.splitlines()
    assert first == "a\\tb\t-"
    assert second.startswith("\\x1b[1m\txxx")
    assert len(second) < 1100
