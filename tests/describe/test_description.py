"""`ipcpoll.describe`, asked over a socket: what it says, what it costs, who is not delayed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Any

import pytest
import wire
from harness import PATIENCE, ROOT, Peer, serve_until

import ipcpoll
from ipcpoll import (
    Client,
    InvalidArguments,
    Server,
    Subscription,
    Topic,
    Turn,
    UnknownCommand,
)
from ipcpoll._schema.commands import CommandSet
from ipcpoll._wire.codec import Decoder
from ipcpoll.describe import Describe
from ipcpoll.describe.description import VERSION, Description
from ipcpoll.errors import WireError

Serve = Callable[..., Server[Any]]


class Full(ipcpoll.DeclaredError):
    """There is no room."""

    CODE = "full"


@ipcpoll.about(effect="reads", errors=(Full,), since="1.0", deprecated="use Size")
@dataclass
class Length:
    """How many there are.

    In all.
    """

    of: str = "all"

    def process(self, ctx: object) -> int:
        return 1


@ipcpoll.about(hidden=True)
@dataclass
class Wait:
    async def process(self, ctx: object) -> str:
        return ""


@dataclass
class Later:
    def process(self, ctx: object) -> Awaitable[int]:
        raise NotImplementedError


@dataclass
class Work:
    def process(self, ctx: object) -> Generator[ipcpoll.Progress | Turn, None, str]:
        yield ipcpoll.Progress(1)
        return "done"


@dataclass
class Turns:
    def process(self, ctx: object) -> Generator[Turn, None, int]:
        yield Turn()
        return 1


@dataclass
class Watch:
    def process(self, ctx: Topic[int]) -> Subscription[int]:
        return ctx.subscribe()


COMMANDS = [Length, Wait, Later, Work, Turns, Watch]


def ask(server: Server[Any], known: str | None = None) -> dict[str, Any]:
    with Client(server.address, timeout=PATIENCE) as client:
        return client.call(Describe(known))


def made(description: Description) -> Any:
    while description.advance():
        pass
    return Decoder().decode(description.answer(None))


# ---------------------------------------------------------------------------------------------
# What it says


def test_whole_description(serve: Serve) -> None:
    server = serve(COMMANDS, name="counter", version="1.2")
    answer = ask(server)
    assert list(answer) == [
        *("ipcpoll", "program", "commands", "variables", "groups", "$defs", "fingerprint")
    ]
    assert answer["program"] | {"started": 0, "command": ""} == {
        "name": "counter",
        "version": "1.2",
        "pid": os.getpid(),
        "python": ".".join(map(str, sys.version_info[:3])),
        "started": 0,
        "command": "",
    }
    assert 0 <= time.time() - answer["program"]["started"] < 60 + PATIENCE
    assert (answer["variables"], answer["groups"]) == ({}, {})
    assert list(answer["commands"]) == [cls.__name__ for cls in COMMANDS]
    assert answer["commands"]["Length"] == {
        "doc": "How many there are.\n\nIn all.",
        "fields": {
            "type": "object",
            "properties": {"of": {"type": "string", "default": "all"}},
            "required": [],
            "additionalProperties": False,
        },
        "answer": {"type": "integer"},
        "piece": None,
        "kind": "plain",
        "effect": "reads",
        "errors": {"full": "There is no room."},
        "since": "1.0",
        "deprecated": "use Size",
        "hidden": False,
    }
    kinds = {name: command["kind"] for name, command in answer["commands"].items()}
    assert kinds == {
        "Length": "plain",
        "Wait": "later",
        "Later": "later",
        "Work": "pieces",
        "Turns": "later",
        "Watch": "pieces",
    }
    work = answer["commands"]["Work"]
    assert work["piece"] == {"$ref": "#/$defs/Progress", "x-progress": True}
    assert work["answer"] == {"type": "string"}
    assert (work["effect"], work["errors"], work["since"]) == ("changes", {}, None)
    assert answer["commands"]["Watch"]["answer"] is None
    assert answer["commands"]["Wait"]["hidden"] is True
    assert list(answer["$defs"]) == ["Progress"]


def test_built_in_commands_are_not_listed(serve: Serve) -> None:
    server = serve(COMMANDS)
    ask(server)
    assert "ipcpoll.describe" not in ask(server)["commands"]


def test_known_fingerprint_is_answered_in_short(serve: Serve) -> None:
    server = serve(COMMANDS)
    answer = ask(server)
    short = ask(server, answer["fingerprint"])
    assert short == {key: answer[key] for key in ("ipcpoll", "program", "fingerprint")}
    assert ask(server, "0" * 64) == answer


def test_two_servers_say_the_same_of_the_same_commands(serve: Serve) -> None:
    one, other = ask(serve(COMMANDS, name="a")), ask(serve(COMMANDS, version="2"))
    assert one["fingerprint"] == other["fingerprint"]
    assert ask(serve([Length]))["fingerprint"] != one["fingerprint"]


def test_any_client_can_ask_by_name(serve: Serve) -> None:
    server = serve(COMMANDS)
    with Client(server.address, timeout=PATIENCE) as client:
        assert client.request("ipcpoll.describe") == client.call(Describe())
        assert client.request("ipcpoll.describe", {"known": None})["commands"]
        with pytest.raises(InvalidArguments, match=r"ipcpoll\.describe has no field `knwn`"):
            client.request("ipcpoll.describe", {"knwn": None})
        with pytest.raises(InvalidArguments, match=r"ipcpoll\.describe\.known must be"):
            client.request("ipcpoll.describe", {"known": 5})


def test_version_of_ipcpoll_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION


def test_name_of_a_program(serve: Serve, directory: str) -> None:
    assert ask(serve([Length]))["program"]["name"] == "0"
    with Server(f"{directory}/viewer", Length) as server, Client(server.address) as client:
        future = client.submit(Describe())
        serve_until(server, lambda: client.poll() or future.done())
        assert future.result()["program"]["name"] == "viewer"


@pytest.mark.parametrize(
    ("options", "what"), [({"name": 5}, "name"), ({"version": 1.2}, "version")]
)
def test_identity_is_text(directory: str, options: Any, what: str) -> None:
    with pytest.raises(TypeError, match=f"the {what} of a program is text, not "):
        Server(f"{directory}/s", Length, **options)
    assert os.listdir(directory) == []


def test_identity_of_a_socket_that_listens_already(directory: str) -> None:
    import socket

    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"{directory}/given.sock")
    listening.listen()
    with (
        Server.from_socket(listening, Length, version="3") as server,
        Client(server.address) as client,
    ):
        future = client.submit(Describe())
        serve_until(server, lambda: client.poll() or future.done())
        program = future.result()["program"]
        assert (program["name"], program["version"]) == ("given", "3")


def test_identity_of_one_that_runs_once(directory: str) -> None:
    server, _ = ipcpoll.serve_or_send(f"{directory}/x", Length, Length(), name="a", version="b")
    assert server is not None
    with server, Client(server.address) as client:
        future = client.submit(Describe())
        serve_until(server, lambda: client.poll() or future.done())
        program = future.result()["program"]
        assert (program["name"], program["version"]) == ("a", "b")


PROGRAM = """
import sys
from ipcpoll._schema.commands import CommandSet
from ipcpoll._server.built_in import BuiltIns
print(BuiltIns(None, "/x.sock", None, None)._program()["command"])
"""


@pytest.mark.parametrize("way", ["file", "module", "package", "folder", "code"])
def test_command_of_a_program_has_no_arguments(tmp_path: Path, way: str) -> None:
    (tmp_path / "my game.py").write_text(PROGRAM)
    (tmp_path / "tool").mkdir()
    (tmp_path / "tool" / "__init__.py").touch()
    (tmp_path / "tool" / "__main__.py").write_text(PROGRAM)
    (tmp_path / "tool" / "run.py").write_text(PROGRAM)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "__main__.py").write_text(PROGRAM)
    given, expected = {
        "file": (["my game.py"], f" '{tmp_path}/my game.py'"),
        "module": (["-m", "tool.run"], " -m tool.run"),
        "package": (["-m", "tool"], " -m tool"),
        "folder": (["folder"], f" {tmp_path}/folder/__main__.py"),
        "code": (["-c", PROGRAM], ""),
    }[way]
    ended = subprocess.run(
        [sys.executable, *given, "--password=hunter2"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    command = ended.stdout.removesuffix("\n")
    assert command.startswith(sys.executable)
    said = command.removeprefix(sys.executable)
    assert said.replace(f"{tmp_path}/./", f"{tmp_path}/") == expected


# ---------------------------------------------------------------------------------------------
# As a command like others


@pytest.mark.parametrize("name", ["ipcpoll.describe", "ipcpoll.", "ipcpoll.mine"])
def test_names_of_built_in_commands_are_taken(directory: str, name: str) -> None:
    cls = wire.command(int)
    cls.__name__ = name
    with pytest.raises(TypeError, match=f"Cmd is named `{name}`; names that begin with `ipcpoll.`"):
        Server(f"{directory}/s", [Length, cls])
    assert os.listdir(directory) == []


def test_describe_can_not_be_given_to_a_server(directory: str) -> None:
    with pytest.raises(TypeError, match=r"Describe is named `ipcpoll\.describe`"):
        Server(f"{directory}/s", [Describe])


def test_unknown_built_in_command_names_the_nearest(serve: Serve) -> None:
    with Client(serve([Length]).address, timeout=PATIENCE) as client:
        with pytest.raises(UnknownCommand, match=r"did you mean `ipcpoll\.describe`"):
            client.request("ipcpoll.descibe")
        with pytest.raises(UnknownCommand, match="did you mean `Length`"):
            client.request("Lenth")
        with pytest.raises(UnknownCommand):
            client.request("ipcpoll.")


def test_commands_without_a_server_have_no_built_in_ones() -> None:
    commands = CommandSet([Length])
    assert not commands.answers_later("ipcpoll.describe")
    with pytest.raises(WireError, match=r"^the server has no command `ipcpoll\.describe`$"):
        commands["ipcpoll.describe"]


def test_it_needs_no_context(make_server: Serve, connect: Callable[..., Peer]) -> None:
    server = make_server([Watch])
    peer = connect(server)
    peer.call(1, "ipcpoll.describe", known=None)
    messages: list[Any] = []
    serve_until(server, lambda: messages.extend(peer.received()) or messages, None)
    assert messages[0][2]["commands"]["Watch"]["kind"] == "pieces"


def test_limit_of_calls_in_flight_holds(make_server: Serve, connect: Callable[..., Peer]) -> None:
    server = make_server([Turns, Length], max_in_flight=1)
    peer = connect(server)
    peer.call(1, "ipcpoll.describe")
    peer.call(2, "ipcpoll.describe")
    peer.call(3, "ipcpoll.nonsense")
    messages: list[Any] = []
    serve_until(server, lambda: messages.extend(peer.received()) or len(messages) == 3, None)
    ends = {message[0]: message[2] for message in messages}
    assert ends[2]["code"] == "busy"
    assert ends[3]["code"] == "unknown-command"
    assert ends[1]["commands"]


def test_one_that_goes_away_leaves_the_description_to_the_next(
    make_server: Serve, connect: Callable[..., Peer]
) -> None:
    server = make_server(
        [
            make_dataclass(f"C{i}", [("x", int)], namespace={"process": Length.process})
            for i in range(50)
        ]
    )
    first, second = connect(server), connect(server)
    first.call(1, "ipcpoll.describe")
    for _ in range(5):
        server.poll(None, max_commands=3)
    first.close()
    second.call(1, "ipcpoll.describe")
    messages: list[Any] = []
    serve_until(server, lambda: messages.extend(second.received()) or messages, None)
    assert len(messages[0][2]["commands"]) == 50
    assert server.stats()["in_flight"] == 0


def test_too_large_a_description_is_said_to_be(
    make_server: Serve, connect: Callable[..., Peer]
) -> None:
    server = make_server(COMMANDS, max_answer=1000)
    peer = connect(server)
    peer.call(1, "ipcpoll.describe")
    messages: list[Any] = []
    serve_until(server, lambda: messages.extend(peer.received()) or messages, None)
    assert messages[0][2]["code"] == "too-large"


def test_notification_of_it_does_nothing(make_server: Serve, connect: Callable[..., Peer]) -> None:
    server = make_server(COMMANDS)
    peer = connect(server)
    peer.call(None, "ipcpoll.describe")
    peer.call(5, "Length")
    messages: list[Any] = []
    serve_until(server, lambda: messages.extend(peer.received()) or messages, None)
    assert [message[0] for message in messages] == [5]


def test_factory_that_ends_the_program_does_so_and_it_can_be_asked_again(
    make_server: Serve, connect: Callable[..., Peer]
) -> None:
    import dataclasses

    ways: list[Any] = [SystemExit(3)]

    def make() -> int:
        if ways:
            raise ways.pop()
        return 5

    cls = make_dataclass(
        "Cmd",
        [("x", int, dataclasses.field(default_factory=make))],
        namespace={"process": Length.process},
    )
    server = make_server([cls])
    first, second = connect(server), connect(server)
    first.call(1, "ipcpoll.describe")
    with pytest.raises(SystemExit):
        serve_until(server, lambda: False, None)
    second.call(1, "ipcpoll.describe")
    messages: list[Any] = []
    serve_until(server, lambda: messages.extend(second.received()) or messages, None)
    assert messages[0][2]["commands"]["Cmd"]["fields"]["properties"]["x"]["default"] == 5


def test_factory_that_polls_makes_others_wait(
    make_server: Serve, connect: Callable[..., Peer]
) -> None:
    import dataclasses

    polled: list[int] = []

    def make() -> int:
        if not polled:
            polled.append(server.poll(None, max_commands=5))
        return 5

    cls = make_dataclass(
        "Cmd",
        [("x", int, dataclasses.field(default_factory=make))],
        namespace={"process": Length.process},
    )
    server = make_server([cls])
    first, second = connect(server), connect(server)
    first.call(1, "ipcpoll.describe")
    second.call(1, "ipcpoll.describe")
    messages: list[Any] = []
    serve_until(
        server,
        lambda: messages.extend(first.received() + second.received()) or len(messages) == 2,
        None,
    )
    assert polled[0] > 0
    assert messages[0] == messages[1]
    assert messages[0][2]["commands"]


def test_class_that_is_too_deep_does_not_hide_the_others() -> None:
    deep: Any = int
    for _ in range(40):
        deep = tuple[deep, int]
    records = make_dataclass("Deep", [("y", deep)], namespace={"__doc__": "Very."})

    def process(self: Any, ctx: Any) -> Any:
        raise NotImplementedError

    process.__annotations__ = {"return": deep}
    one = make_dataclass("One", [("x", deep)], namespace={"process": process, "__doc__": "It."})
    two = make_dataclass("Two", [("x", records)], namespace={"process": Length.process})
    answer = made(Description(CommandSet([one, two, Length]), {}))
    assert answer["commands"]["One"]["fields"] == answer["commands"]["One"]["answer"] == {}
    assert answer["commands"]["One"]["piece"] is None
    assert answer["commands"]["One"]["doc"] == "It."
    assert answer["commands"]["Two"]["fields"]["properties"]["x"] == {"$ref": "#/$defs/Deep"}
    assert answer["$defs"]["Deep"] == {"title": "Deep", "description": "Very."}
    assert answer["commands"]["Length"]["fields"]["properties"]


def test_variables_have_their_place() -> None:
    said = {"doc": "", "schema": {"type": "integer"}, "default": 1}
    answer = made(Description(CommandSet([Length]), {}, {"a.b": said}, {"a": "A group."}))
    assert answer["variables"] == {"a.b": said}
    assert answer["groups"] == {"a": "A group."}
    other = made(Description(CommandSet([Length]), {}))
    assert answer["fingerprint"] != other["fingerprint"]


def test_hostile_words_are_passed_as_they_are(serve: Serve) -> None:
    """Whoever shows them escapes them."""
    doc = "\x1b]0;owned\x07\u202e" + "x" * (1 << 20)
    cls = make_dataclass("Cmd", [("x", int)], namespace={"process": Length.process, "__doc__": doc})
    assert ask(serve([ipcpoll.about(since="\x1b[2J", deprecated="\u202e")(cls)]))["commands"][
        "Cmd"
    ] | {"fields": 0, "answer": 0} == {
        "doc": doc,
        "fields": 0,
        "answer": 0,
        "piece": None,
        "kind": "plain",
        "effect": "changes",
        "errors": {},
        "since": "\x1b[2J",
        "deprecated": "\u202e",
        "hidden": False,
    }


# ---------------------------------------------------------------------------------------------
# What it costs


def hundred() -> list[type]:
    def field_types(i: int) -> list[tuple[str, Any]]:
        point = make_dataclass(f"Point{i}", [("x", float), ("y", float)])
        return [("a", int), ("b", list[point]), ("c", dict[str, float]), ("d", str | None)]  # type: ignore[valid-type]

    return [
        make_dataclass(f"Cmd{i}", field_types(i), namespace={"process": Length.process})
        for i in range(100)
    ]


def test_each_step_is_short_and_a_later_answer_shorter() -> None:
    """Far below the 5 ms of a poll's budget; the median, as other processes interrupt."""
    description = Description(CommandSet(hundred()), {})
    took: list[float] = []
    more = True
    while more:
        began = time.perf_counter()
        more = description.advance()
        took.append(time.perf_counter() - began)
    assert len(took) > 400  # a step for each command and class, and for the encoding of each
    assert sorted(took)[-10] < 0.002
    later: list[float] = []
    for _ in range(100):
        began = time.perf_counter()
        description.answer(None)
        later.append(time.perf_counter() - began)
    assert sorted(later)[50] < 0.0001


def test_others_are_not_delayed(make_server: Serve, connect: Callable[..., Peer]) -> None:
    """While it is made, one that calls meanwhile waits for no more than a step or two."""
    server = make_server([*hundred(), Length])
    asking, other = connect(server), connect(server)
    asking.call(1, "ipcpoll.describe")
    description: list[Any] = []
    answered = polls = 0
    other.call(0, "Length")
    while not description:
        server.poll(None, max_seconds=0)  # one turn
        polls += 1
        came = other.received()
        if came:
            answered += len(came)
            other.call(answered, "Length")
        description += asking.received()
    assert polls > 400
    assert answered > polls / 4
    assert len(description[0][2]["commands"]) == 101


def test_server_that_nobody_asks_loads_nothing() -> None:
    source = """
import sys, ipcpoll
from dataclasses import dataclass

@dataclass
class Add:
    a: int
    def process(self, ctx: object) -> int:
        return self.a

def loaded():
    return [name for name in sys.modules if name.startswith("ipcpoll.describe")]

with ipcpoll.Server(sys.argv[1], Add) as server, ipcpoll.Client(server.address) as client:
    for asked in (lambda: client.submit(Add(1)), lambda: client.begin(
            ipcpoll._client.futures.CallFuture, "Sub", b"cSub\\xa0", lambda x: x, 5)):
        future = asked()
        while not future.done():
            server.poll(None); client.poll()
    assert not loaded(), loaded()
    from ipcpoll import SECRET
    assert "ipcpoll.describe.schema" not in loaded(), loaded()
"""
    import tempfile

    from harness import finish, run_python

    with tempfile.TemporaryDirectory() as directory:
        finish(run_python(source, f"{directory}/s"))
