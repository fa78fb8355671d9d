"""The blocks of README.md and docs/*.md: every one is run; a block that nothing runs is a failure.

A Python block names its file in its first line, as a comment. `PROGRAMS` says how it is run; a
comment after a ``print`` in it says what it prints.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from documents import ROOT, Block, blocks, documents, find_blocks, read
from harness import PATIENCE, wait_until
from loops import need

from ipcpoll.testing import AdapterConformance

pytestmark = pytest.mark.once

ALL = [block for document in documents() for block in blocks(document)]

# What another test reads: which language, where, and that test's module.
READ_ELSEWHERE = {
    ("hex", "docs/protocol.md"): "docs/test_protocol",
    ("text", "docs/design.md"): "docs/test_design",
    ("text", "README.md"): "client/test_reasons",
}
# Commands that need no check here, and why.
COMMANDS = {
    "python -m cbor2.tool --sequence capture.cbor": "run by docs/test_protocol",
    "pip install .": "`make installed` builds the wheel, installs it elsewhere and uses it",
}

# How a Python block is run: beside which server, and with which arguments.
MODULES = {
    "README.md calc.py",
    "docs/answers.md desk.py",
    "docs/clients.md render.py",
    "docs/commands.md parts.py",
    "docs/describe.md shop.py",
}
SERVERS = {
    "README.md app.py",
    "README.md watch.py",
    "docs/adapters.md in_select.py",
    "docs/adapters.md in_poll.py",
    "docs/adapters.md in_epoll.py",
    "docs/adapters.md in_trio.py",
    "docs/answers.md serve_desk.py",
    "docs/clients.md studio.py",
    "docs/describe.md open_shop.py",
}
NEEDS = {"docs/adapters.md in_trio.py": ("trio", "pip install trio")}
PROGRAMS = {
    ("README.md ask.py", "README.md app.py"): [],
    ("README.md ask.py", "README.md watch.py"): [],
    ("README.md ask.py", "docs/adapters.md in_select.py"): [],
    ("README.md ask.py", "docs/adapters.md in_poll.py"): [],
    ("README.md ask.py", "docs/adapters.md in_epoll.py"): [],
    ("README.md ask.py", "docs/adapters.md in_trio.py"): [],
    ("docs/answers.md ask_desk.py", "docs/answers.md serve_desk.py"): [],
    ("docs/clients.md wait.py", "docs/clients.md studio.py"): [],
    ("docs/clients.md poll_it.py", "docs/clients.md studio.py"): [],
    ("docs/clients.md await_it.py", "docs/clients.md studio.py"): [],
    ("docs/describe.md look.py", "docs/describe.md open_shop.py"): [],
    ("docs/describe.md buy.py", "docs/describe.md open_shop.py"): [],
    ("docs/protocol.md plain_client.py", "README.md app.py"): ["ipcpoll/calc.sock"],
}
# An adapter, and the suite that proves it: run by test_stranger_proves_an_adapter.
ADAPTER = {"docs/adapters.md gevent_loop.py", "docs/adapters.md test_gevent_loop.py"}


def python_blocks() -> dict[str, Block]:
    return {f"{block.document} {block.title}": block for block in ALL if block.language == "python"}


def programs() -> set[str]:
    return {program for program, _ in PROGRAMS}


def is_checked(block: Block) -> bool:
    """Return whether a test runs or reads this block."""
    if block.language == "python":
        return f"{block.document} {block.title}" in MODULES | SERVERS | ADAPTER | programs()
    if block.language == "console":
        return True  # by test_console_block, and by test_gallery
    return (block.language, block.document) in READ_ELSEWHERE


@pytest.mark.parametrize("block", ALL, ids=str)
def test_block_is_checked(block: Block) -> None:
    """A block of another kind needs a way to run, which is put down here."""
    assert is_checked(block), f"nothing runs {block}: name its file and say here how it is run"
    if block.language != "python":
        assert "import ipcpoll" not in block.text, f"{block} is Python, and does not say so"


def test_no_file_is_shown_twice() -> None:
    shown = [block for block in ALL if block.language == "python"]
    assert len(shown) == len(python_blocks())


def test_each_entry_has_its_block() -> None:
    assert MODULES | SERVERS | ADAPTER | programs() == set(python_blocks())
    assert {name for _, server in PROGRAMS for name in [server]} == SERVERS
    found = {(block.language, block.document) for block in ALL}
    for key, module in READ_ELSEWHERE.items():
        assert key in found
        assert (ROOT / "tests" / f"{module}.py").exists()


# ---------------------------------------------------------------------------------------------
# Python


@contextmanager
def serving(name: str, directory: Path) -> Iterator[None]:
    """Run a server block in `directory`, which holds its runtime directory too."""
    if name in NEEDS:
        need(*NEEDS[name])
    process = start(name, directory)
    path = str(directory / "ipcpoll" / "calc.sock")

    def accepts() -> bool:
        assert process.poll() is None, process.communicate()
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(path) == 0

    try:
        wait_until(accepts, name)
        yield
        assert process.poll() is None, process.communicate()
    finally:
        process.kill()
        _, errors = process.communicate(timeout=PATIENCE)
    assert errors == ""


def start(name: str, directory: Path, *arguments: str) -> subprocess.Popen[str]:
    """Write a block and the modules beside it to `directory`, and start it."""
    for key in {name, *MODULES}:
        block = python_blocks()[key]
        (directory / block.title).write_text(block.text, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "-W", "error", python_blocks()[name].title, *arguments],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(directory)},
    )


def promised_output(block: Block) -> str:
    """Return what the comments behind the prints say."""
    lines = [line for line in block.text.splitlines() if line.lstrip().startswith("print(")]
    assert lines, f"{block} prints nothing, so nothing shows that it works"
    assert all("  # " in line for line in lines), f"{block}: a print does not say what it prints"
    return "".join(line.rpartition("  # ")[2] + "\n" for line in lines)


@pytest.mark.parametrize(("name", "server"), PROGRAMS)
def test_program(name: str, server: str, directory: str) -> None:
    place = Path(directory)
    with serving(server, place):
        process = start(name, place, *PROGRAMS[name, server])
        try:
            out, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
            process.wait(PATIENCE)
    assert (process.returncode, errors) == (0, "")
    assert out == promised_output(python_blocks()[name])


def test_small_client_shows_an_error(directory: str) -> None:
    """What plain_client.py does with an answer that is an error: the server has no Add."""
    from harness import COMMANDS as WITHOUT_ADD
    from harness import Host, serve_until

    from ipcpoll import Server

    with Server(f"{directory}/s", WITHOUT_ADD) as server:
        process = start("docs/protocol.md plain_client.py", Path(directory), server.address)
        try:
            serve_until(server, lambda: process.poll() is not None, Host())
        finally:
            process.kill()
            out, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (1, "")
    assert errors.startswith("unknown-command: ")


def test_stranger_proves_an_adapter(tmp_path: Path) -> None:
    """With the two files of the document, pytest, and nothing of this tree but ipcpoll."""
    need("gevent", "pip install gevent")
    for name in ADAPTER:
        block = python_blocks()[name]
        (tmp_path / block.title).write_text(block.text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    cases = AdapterConformance.cases()
    words = ("nested", "redraws", "asynchronous_generator")  # not of the hub
    other = [name for name in cases if any(word in name for word in words)]
    assert f"{len(cases) - len(other)} passed, {len(other)} skipped" in done.stdout


# ---------------------------------------------------------------------------------------------
# The rest


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


CONSOLE = [
    *(
        block
        for block in ALL
        if block.language == "console" and block.document != "docs/gallery.md"  # by test_gallery
    ),
    *(block for block in blocks("CONTRIBUTING.md") if block.language == "console"),
]


@pytest.mark.parametrize("block", CONSOLE, ids=str)
def test_console_block(block: Block) -> None:
    """Each command is a target of the Makefile, or one that another test runs."""
    commands = re.findall(r"^\$ (.*?)(?: +#.*)?$", block.text, re.MULTILINE)
    assert commands, f"{block} shows no command"
    for command in commands:
        if command.startswith("make "):
            assert command.removeprefix("make ") in makefile_targets(), command
        else:
            assert command in COMMANDS, f"{block}: nothing runs {command!r}"


@pytest.mark.parametrize("document", [*documents(), "CONTRIBUTING.md"])
def test_links_lead_somewhere(document: str) -> None:
    outside_of_code = re.sub(r"^```.*?^```$", "", read(document), flags=re.MULTILINE | re.DOTALL)
    folder = (ROOT / document).parent
    for link in re.findall(r"\]\(([^)#]+)", outside_of_code):
        if "://" not in link:
            assert (folder / link).exists(), f"{document}: {link} is not there"


def test_paths_lead_somewhere() -> None:
    """The files that the documents name in backquotes are there."""
    for document in documents():
        for path in re.findall(
            r"`((?:tests|ipcpoll|adapters|examples|benchmarks)/[^` ]*)`", read(document)
        ):
            assert list(ROOT.glob(path)), f"{document}: {path} is not there"


# ---------------------------------------------------------------------------------------------
# The tests' own tools


def test_blocks_are_found() -> None:
    text = "a\n```python\n# x.py\n1\n```\n\n````text\n```\n````\n```\n```\n"
    found = [
        (block.line, block.language, block.text, block.title) for block in find_blocks("d", text)
    ]
    assert found == [
        (3, "python", "# x.py\n1\n", "x.py"),
        (8, "text", "```\n", ""),
        (11, "", "", ""),
    ]


def test_block_without_an_end() -> None:
    with pytest.raises(AssertionError, match="d:2: this block has no end"):
        find_blocks("d", "```python\n1\n")


@pytest.mark.parametrize(
    ("language", "text"),
    [("python", "1\n"), ("python", "# new.py\n1\n"), ("", "1\n"), ("sh", "1\n"), ("text", "1\n")],
)
def test_new_block_is_noticed(language: str, text: str) -> None:
    assert not is_checked(Block("docs/protocol.md", 1, language, text))
