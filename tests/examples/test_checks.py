"""Each example runs as its docstring says, and checks itself. Real processes, as its users."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import pytest
from harness import ROOT, wait_until
from loops import need, screen

import ipcpoll

pytestmark = pytest.mark.once

EXAMPLES = ROOT / "examples"
PYGAME = ("pygame", "pip install pygame-ce")
TK = ("_tkinter", "apt-get install python3-tk")
NEEDS = {
    "plot": [("matplotlib", "pip install matplotlib"), TK],
    "pygame_balls": [PYGAME],
    "trio_service": [("trio", "pip install trio")],
    "twisted_chat": [("twisted", "pip install twisted")],
    "stage": [TK],
    "tk_monitor": [TK, PYGAME],
    "tk_question": [TK],
}
PROGRAMS = [
    "asyncio_service",
    "open_once",
    "plot",
    "pygame_balls",
    "select_tail",
    "stage",
    "tk_monitor",
    "tk_question",
    "trio_service",
    "twisted_chat",
]
GTK4 = "apt-get install python3-gi python3-gi-cairo gir1.2-gtk-4.0"
PLOT = "pip install matplotlib, with apt-get install python3-tk,"
PATIENCE = 60


def needed(name: str) -> None:
    """Skip the test where a library of the example is missing. One Python of CI has matplotlib."""
    for library in NEEDS.get(name, []):
        need(*library, everywhere=name != "plot")


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", **more}


def run(name: str, *arguments: str, folder: Path = EXAMPLES, **more: str) -> tuple[int, str, str]:
    """Run an example to its end, in the folder above its own, as one does in a checkout."""
    done = subprocess.run(
        [sys.executable, f"{folder.name}/{name}.py", *arguments],
        cwd=folder.parent,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=environment(**more),
    )
    return done.returncode, done.stdout, done.stderr


@contextmanager
def a_screen_for(*names: str) -> Iterator[dict[str, str]]:
    """Give the variables that name a screen, if one of these examples opens a window."""
    with ExitStack() as stack:
        windows = any(name.startswith("tk_") or name == "plot" for name in names)
        yield {"DISPLAY": stack.enter_context(screen())} if windows else {}


@pytest.mark.parametrize("name", PROGRAMS)
def test_help(name: str) -> None:
    if name not in ("plot", "pygame_balls", "stage"):
        needed(name)
    code, out, err = run(name, "--help")
    assert (code, err) == (0, "")
    assert docstring(name) in out
    assert "--address" in out
    assert "--check" in out


def docstring(name: str) -> str:
    text = ast.get_docstring(ast.parse((EXAMPLES / f"{name}.py").read_text()), clean=False)
    assert text
    return text


# ---------------------------------------------------------------------------------------------
# The commands in the docstrings

# What they do not find, or should find, on every desk; and a job that takes half a minute.
SUBSTITUTES = {
    "/var/log/syslog": "app.log",
    "--port 4000": "--port 0",
    "pygame_balls.py search   ": "pygame_balls.py search 5 ",
}
UNTIL_CTRL_C = ("select_tail.py follow",)
FAIL = {
    "pygame_balls.py": "runs at this address already",
    "twisted_chat.py admin kick ann": "ann is not here",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_commands_of_the_docstring(name: str, directory: str, tmp_path: Path) -> None:
    """One after the other, in the folder of the examples; those with & go on."""
    needed(name)
    folder = tmp_path / "examples"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("app.log", "letter.txt", "photo.png"):
        (folder / file).write_text("usb\n")
    text = docstring(name)
    for old, new in SUBSTITUTES.items():
        text = text.replace(old, new)
    commands = re.findall(r"^    \$ python (\S.*?)( &)?(?:  .*)?$", text, re.MULTILINE)
    assert len(commands) >= 3
    with ExitStack() as stack:
        more = {"SDL_VIDEODRIVER": "dummy", "PYGAME_HIDE_SUPPORT_PROMPT": "1"}
        more |= stack.enter_context(a_screen_for(name, "tk_stage" if name == "stage" else ""))
        variables = environment(XDG_RUNTIME_DIR=directory, **more)
        for words, goes_on in commands:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, *shlex.split(words)],
                    cwd=folder,
                    env=variables,
                    stdout=subprocess.PIPE if words in UNTIL_CTRL_C else subprocess.DEVNULL,
                    stderr=None if goes_on else subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            if goes_on:
                wait_until(lambda: list(Path(directory).glob("ipcpoll/*.sock")), words)
            elif words in UNTIL_CTRL_C:
                assert process.stdout is not None
                assert process.stdout.readline()
                process.send_signal(signal.SIGINT)
                assert process.wait(PATIENCE) == 130
            else:
                _, err = process.communicate(timeout=PATIENCE)
                assert FAIL.get(words, "") in err
                assert process.returncode == (words in FAIL), err


# ---------------------------------------------------------------------------------------------
# The checks


def run_check(name: str, folder: Path = EXAMPLES) -> tuple[int, str, str]:
    if name != "stage":  # whose check needs no window
        needed(name)
    with a_screen_for(name) as more:
        return run(name, "--check", folder=folder, **more)


@pytest.mark.parametrize("name", PROGRAMS)
def test_check(name: str) -> None:
    code, out, err = run_check(name)
    assert (code, err) == (0, "")
    assert out.endswith("all is well\n")


@pytest.mark.parametrize(
    ("name", "file", "right", "wrong"),
    [
        ("asyncio_service", "asyncio_service.py", "ctx.going.clear()", "pass"),
        ("open_once", "open_once.py", "command.process(viewer)", "pass"),
        ("plot", "plot.py", "line.remove()", "pass"),
        ("pygame_balls", "balls.py", "not ctx.paused", "True"),
        ("pygame_balls", "pygame_balls.py", "+ FRAME_SECONDS", "+ 2 * FRAME_SECONDS"),
        ("pygame_balls", "balls.py", "yield ipcpoll.Turn()", "pass"),
        ("pygame_balls", "balls.py", "yield Progress(done, self.tries)", "yield Progress(1, 2)"),
        ("select_tail", "select_tail.py", "self.rest + self.file.read", "self.file.read"),
        ("select_tail", "select_tail.py", "publish(self.lines[-1])", "publish(self.lines[0])"),
        ("stage", "village.py", "client.call(command)", "pass"),
        ("tk_monitor", "tk_monitor.py", "self.numbers.append(number)", "self.numbers.append(0)"),
        ("tk_monitor", "tk_monitor.py", "gap=plot.gap", "gap=None"),
        ("tk_question", "tk_question.py", "partial(first.set_result, answer)", "first.cancel"),
        ("trio_service", "trio_service.py", ".scopes[self.name].cancel()", ".scopes[self.name]"),
        ("twisted_chat", "twisted_chat.py", "return len(self.guests)", "return 0"),
    ],
)
def test_check_fails(name: str, file: str, right: str, wrong: str, tmp_path: Path) -> None:
    """One thing is wrong in the program, and its check finds it."""
    code, out, err = run_check(name, folder=broken(tmp_path, (file, right, wrong)))
    assert code == 1
    assert "AssertionError" in err
    assert "all is well" not in out


def test_check_that_waits_in_vain(tmp_path: Path) -> None:
    """It ends, and so does what it has started: that shares its standard error, which ended."""
    never = ("asyncio_service.py", "ctx.stopping.set()", "pass")
    soon = ("shell.py", "CHECK_SECONDS = 60", "CHECK_SECONDS = 3")
    code, out, err = run("asyncio_service", "--check", folder=broken(tmp_path, never, soon))
    assert (code, out, err) == (1, "", "the check takes too long\n")


def broken(directory: Path, *changes: tuple[str, str, str]) -> Path:
    """Return a folder with the examples, in which something is wrong."""
    folder = directory / "examples"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name, right, wrong in changes:
        text = (folder / name).read_text()
        assert text.count(right) == 1, f"{name}: {right}"
        (folder / name).write_text(text.replace(right, wrong))
    return folder


@pytest.mark.parametrize("pixels", ["nan", "inf", "-inf"])
def test_gravity_is_a_number(pixels: str) -> None:
    """What is none would put the balls nowhere, for good."""
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        from balls import Gravity
    finally:
        sys.path.pop(0)
    with pytest.raises(msgspec.ValidationError, match=r"pixels"):
        msgspec.convert({"pixels": float(pixels)}, Gravity)


def test_balls_in_a_window() -> None:
    """The same with a real window, on an X server without a screen."""
    need(*PYGAME)
    with screen() as display:
        code, out, err = run("pygame_balls", "--check", DISPLAY=display, SDL_VIDEODRIVER="x11")
    assert (code, err) == (0, "")
    assert out.endswith("all is well\n")


def test_lines_that_came_too_fast(directory: str) -> None:
    """Who follows and does not read loses the oldest lines, and is told how many."""
    address = ["--address", f"{directory}/s"]
    sys.path.insert(0, str(EXAMPLES))
    try:
        from select_tail import Tail
    finally:
        sys.path.pop(0)
    with ExitStack() as stack:

        def start(*words: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "examples/select_tail.py", *address, *words],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment(),
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline()
            return process

        log = stack.enter_context(open(f"{directory}/log", "w", 1))
        log.write("first\n")
        start("--follow", log.name)
        follower = start("follow")
        follower.send_signal(signal.SIGSTOP)
        for number in range(5000):
            log.write(f"{number:1000}\n")
        log.write("last\n")
        with ipcpoll.Client(f"{directory}/s") as client:
            wait_until(lambda: client.call(Tail(1)) == ["last"], "the last line")
        follower.send_signal(signal.SIGCONT)
        came = 0
        assert follower.stdout is not None
        for line in follower.stdout:
            if line == "last\n":
                break
            came += 1
        follower.send_signal(signal.SIGINT)
        _, err = follower.communicate(timeout=PATIENCE)
    told = re.findall(r"^(\d+) pieces are lost: they came too fast$", err, re.MULTILINE)
    assert sum(map(int, told)) == 5000 - came > 0


def test_progress_bar(directory: str) -> None:
    """It is drawn on a terminal, and the answer goes to the output alone."""
    need(*PYGAME)
    variables = environment(SDL_VIDEODRIVER="dummy", PYGAME_HIDE_SUPPORT_PROMPT="1")
    command = [sys.executable, str(EXAMPLES / "pygame_balls.py"), "--address", f"{directory}/s"]
    terminal, end = os.openpty()
    with (
        open(terminal, "rb", 0) as screen_of_it,
        subprocess.Popen(command, stdout=subprocess.PIPE, env=variables, text=True) as game,
    ):
        try:
            assert game.stdout is not None
            assert game.stdout.readline()
            answer = subprocess.check_output([*command, "search", "2"], stderr=end, env=variables)
            shown = screen_of_it.read(4096)
        finally:
            os.close(end)
            game.kill()
    assert int(answer) in (200, 1100)
    assert shown.split(b"\r")[1:4] == [
        b"[" + b"." * 40 + b"] 0 %",
        b"[" + b"#" * 20 + b"." * 20 + b"] 50 %",
        b"[" + b"#" * 40 + b"] 100 %",
    ]


# ---------------------------------------------------------------------------------------------
# The command line that shell.py makes from the commands


@pytest.mark.parametrize(
    ("name", "words"),
    [("select_tail", ["tail", "3"]), ("pygame_balls", ["pause"]), ("stage", ["scene"])],
)
@pytest.mark.parametrize("behind", [False, True])
def test_nobody_there(name: str, words: list[str], behind: bool, directory: str) -> None:
    address = ["--address", f"{directory}/s"]
    code, out, err = run(name, *(words + address if behind else address + words))
    assert (code, out) == (1, "")
    assert err == f"{name}.py: the program does not run: there is no socket at {directory}/s\n"


@pytest.mark.parametrize(
    ("name", "words", "module", "install"),
    [
        ("plot", [], "matplotlib", PLOT),
        ("pygame_balls", [], "pygame", "pip install pygame-ce"),
        ("pygame_balls", ["--check"], "pygame", "pip install pygame-ce"),
        ("twisted_chat", ["serve"], "twisted", "pip install twisted"),
        ("gtk_stage", [], "gi", GTK4),
        ("qt_stage", [], "PySide6", "pip install PySide6-Essentials"),
        ("tk_stage", [], "tkinter", "apt-get install python3-tk"),
        ("wx_stage", [], "wx", "apt-get install python3-wxgtk4.0 python3-gi"),
        ("tk_monitor", [], "tkinter", "apt-get install python3-tk"),
        ("tk_question", ["waiting"], "tkinter", "apt-get install python3-tk"),
    ],
)
def test_missing_library_is_named(
    name: str, words: list[str], module: str, install: str, directory: str
) -> None:
    """In one sentence, also when it is another process that misses it."""
    text = f"No module named {module}"
    Path(directory, f"{module}.py").write_text(f"raise ModuleNotFoundError({text!r})")
    address = ["--address", f"{directory}/s"]
    code, _, err = run(name, *address, *words, PYTHONPATH=f"{directory}:{ROOT}")
    assert (code, err) == (1, f"{name}.py: {text}; {install} would help\n")


def test_tail_refuses(directory: str) -> None:
    code, _, err = run("select_tail", "--address", f"{directory}/s", "--follow", "/nothing/here")
    assert code == 1
    assert err.startswith("select_tail.py: [Errno 2]")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["grep"], "required: pattern"),
        (["tail", "three"], "invalid int value: 'three'"),
        (["tail", "3", "4"], "unrecognized arguments: 4"),
        (["sing"], "invalid choice: 'sing'"),
    ],
)
def test_wrong_arguments(words: list[str], message: str) -> None:
    code, out, err = run("select_tail", *words)
    assert (code, out) == (2, "")
    assert message in err


def test_help_of_a_verb() -> None:
    """The command's docstring, its field and the field's default."""
    code, out, err = run("select_tail", "tail", "--help")
    assert (code, err) == (0, "")
    assert "Answer the last lines, as many as are wanted and there are." in out
    assert re.search(r"^ +lines +default: 10$", out, re.MULTILINE)
