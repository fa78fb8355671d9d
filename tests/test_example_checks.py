"""Each example runs as its docstring says, and checks itself. Real processes, as its users."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import ExitStack, nullcontext
from pathlib import Path

import msgspec
import pytest
from harness import ROOT, wait_until
from loops import need, screen

EXAMPLES = ROOT / "examples"
NEEDS = {
    "plot": ("matplotlib", "pip install matplotlib"),
    "pygame_balls": ("pygame", "pip install pygame-ce"),
    "trio_service": ("trio", "pip install trio"),
    "twisted_chat": ("twisted", "pip install twisted"),
    "stage": ("_tkinter", "apt-get install python3-tk"),
}
PROGRAMS = [
    "asyncio_service",
    "open_once",
    "plot",
    "pygame_balls",
    "select_tail",
    "stage",
    "trio_service",
    "twisted_chat",
]
GTK4 = "apt-get install python3-gi python3-gi-cairo gir1.2-gtk-4.0"
PLOT = "pip install matplotlib, with apt-get install python3-tk,"
PATIENCE = 60


def needed(name: str) -> None:
    """Skip the test where the example's library is missing. One Python of CI has matplotlib."""
    if name in NEEDS:
        need(*NEEDS[name], everywhere=name != "plot")
    if name == "plot":
        need(*NEEDS["stage"], everywhere=False)


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


@pytest.mark.parametrize("name", PROGRAMS)
def test_help(name: str) -> None:
    if name in ("trio_service", "twisted_chat"):
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

# What they do not find, or should find, on every desk.
SUBSTITUTES = {"/var/log/syslog": "app.log", "--port 4000": "--port 0"}
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
        if name in ("plot", "stage"):
            more["DISPLAY"] = stack.enter_context(screen())
        variables = environment(XDG_RUNTIME_DIR=directory, **more)
        for words, goes_on in commands:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, *shlex.split(words)],
                    cwd=folder,
                    env=variables,
                    stdout=subprocess.DEVNULL,
                    stderr=None if goes_on else subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            if goes_on:
                wait_until(lambda: list(Path(directory).glob("ipcpoll/*.sock")), words)
            else:
                _, err = process.communicate(timeout=PATIENCE)
                assert FAIL.get(words, "") in err
                assert process.returncode == (words in FAIL), err


# ---------------------------------------------------------------------------------------------
# The checks


def run_check(name: str, folder: Path = EXAMPLES) -> tuple[int, str, str]:
    if name != "stage":  # whose check needs no window
        needed(name)
    with screen() if name == "plot" else nullcontext("") as display:
        return run(name, "--check", folder=folder, DISPLAY=display)


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
        ("pygame_balls", "pygame_balls.py", "not ctx.paused", "True"),
        ("pygame_balls", "pygame_balls.py", "+ FRAME_SECONDS", "+ 2 * FRAME_SECONDS"),
        ("select_tail", "select_tail.py", "self.rest + self.file.read", "self.file.read"),
        ("stage", "village.py", "client.call(command)", "pass"),
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
        from pygame_balls import Gravity
    finally:
        sys.path.pop(0)
    with pytest.raises(msgspec.ValidationError, match=r"pixels"):
        msgspec.convert({"pixels": float(pixels)}, Gravity)


def test_balls_in_a_window() -> None:
    """The same with a real window, on an X server without a screen."""
    need(*NEEDS["pygame_balls"])
    with screen() as display:
        code, out, err = run("pygame_balls", "--check", DISPLAY=display, SDL_VIDEODRIVER="x11")
    assert (code, err) == (0, "")
    assert out.endswith("all is well\n")


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
