"""From one call to its reply: whatever a command does, its client gets an answer or an error."""

import enum
import logging
from dataclasses import dataclass
from datetime import date

import cbor2
import pytest
from wire import framed

from ipcpoll import InvalidArguments, Limits
from ipcpoll._schema.commands import CommandSet
from ipcpoll._server.replies import ABANDONED, cancelled_before_its_turn, reply_error, run_call
from ipcpoll._server.running import Running
from ipcpoll._system.log import Log
from ipcpoll._wire.codec import Decoder
from ipcpoll._wire.messages import Call
from ipcpoll._wire.protocol import ServerProtocol
from ipcpoll.errors import Busy, CommandError, UnknownCommand
from ipcpoll.limits import LEAST_ERROR

DECODER = Decoder()


@dataclass
class Add:
    a: int
    b: int = 0

    def __post_init__(self):
        if self.a == 99:
            raise ValueError("a must not be 99")
        if self.a == 98:
            raise KeyError("a must not be 98")
        if self.a == 97:
            raise CommandError("no-97", "a must not be 97", [97])

    def process(self, ctx) -> int:
        return self.a + self.b + ctx


@dataclass
class Do:
    """Does what the context does."""

    def process(self, ctx) -> list:
        return ctx()


COMMANDS = CommandSet([Add, Do])


class Conversation:
    """A server's end, what it replies, and what it logs."""

    def __init__(self, caplog, **limits):
        self.caplog = caplog
        self.protocol = ServerProtocol(Limits(**limits), DECODER)
        self.log = Log(lambda: 0.0, 60.0)
        self.running = Running()

    def take(self, name, fields=None, call_id=7):
        """Let the server take a call."""
        self.protocol.receive(framed(cbor2.dumps([call_id, name, fields or {}])))
        call = self.protocol.next_request()
        assert isinstance(call, Call)
        return call

    def run(self, name, fields=None, ctx=0, call_id=7):
        """Return the reply of a call as it is on the wire."""
        call = self.take(name, fields, call_id)
        return self.read(run_call(call, ctx, COMMANDS, self.protocol, self.log, self.running))

    def fail(self, error, call_id=7):
        """Return the reply of a call that is refused with `error`."""
        return self.read(reply_error(self.take("Do", {}, call_id), error, self.protocol, self.log))

    def read(self, frame):
        assert not self.protocol.calls  # it was answered, or forgotten
        return None if frame is None else cbor2.loads(cbor2.loads(frame).value)

    @property
    def logged(self):
        return [record.getMessage() for record in self.caplog.records]


@pytest.fixture
def talk(caplog):
    return Conversation(caplog)


def raises(error):
    def ctx():
        raise error

    return ctx


# ---------------------------------------------------------------------------------------------
# Answers


def test_command_is_run_with_the_context_and_answered(talk):
    assert talk.run("Add", {"a": 2, "b": 3}, ctx=10) == [7, 0, 15]
    assert talk.run("Do", ctx=lambda: [{"a": [1, None]}]) == [7, 0, [{"a": [1, None]}]]
    assert talk.logged == []


def test_notification_is_run_and_not_answered(talk):
    ran = []
    assert talk.run("Do", ctx=lambda: ran.append(1), call_id=None) is None
    assert ran == [1]
    assert talk.logged == []  # nobody asks whether its answer can be carried


def test_client_that_went_away_meanwhile_is_not_answered(talk):
    assert talk.run("Do", ctx=talk.protocol.hang_up) is None
    assert talk.logged == []


def test_client_that_went_away_meanwhile_is_not_refused(talk):
    def ctx():
        talk.protocol.close()
        raise CommandError("a-code", "why")

    assert talk.run("Do", ctx=ctx) is None
    assert talk.logged == []


# ---------------------------------------------------------------------------------------------
# Refusals


@pytest.mark.parametrize(
    ("name", "fields", "code", "message"),
    [
        ("Ad", {}, "unknown-command", "the server has no command `Ad`; did you mean `Add`?"),
        (
            "Add",
            {},
            "invalid-arguments",
            "Add.a is missing; the two sides may have different versions of Add",
        ),
        ("Add", {"a": "2"}, "invalid-arguments", "Add.a must be an int, not '2'"),
        (
            "Add",
            {"a": 1, "c": 2},
            "invalid-arguments",
            "Add has no field `c`; the two sides may have different versions of Add",
        ),
        ("Add", {"a": 99}, "invalid-arguments", "a must not be 99"),
    ],
)
def test_wrong_call_is_refused_before_it_is_run(talk, name, fields, code, message):
    assert talk.run(name, fields, ctx=None) == [7, 1, {"code": code, "message": message}]
    assert talk.logged == []


SELF = []
SELF.append(SELF)


class Codes(enum.StrEnum):
    NO_LEVEL = "no-level"


@pytest.mark.parametrize(
    ("error", "body"),
    [
        (CommandError("no-level", "there is no level 9"), {}),
        (CommandError("no-level", "there is no level 9", {"most": 8}), {"data": {"most": 8}}),
        (CommandError("no-level", "there is no level 9", False), {"data": False}),
        (CommandError(Codes.NO_LEVEL, "there is no level 9"), {}),
    ],
)
def test_command_may_refuse(talk, error, body):
    expected = {"code": "no-level", "message": "there is no level 9", **body}
    assert talk.run("Do", ctx=raises(error)) == [7, 1, expected]
    assert talk.logged == []


def test_command_may_refuse_with_a_class_of_the_library(talk):
    error = raises(InvalidArguments("a is not even", {"field": "a"}))
    assert talk.run("Do", ctx=error) == [
        7,
        1,
        {"code": "invalid-arguments", "message": "a is not even", "data": {"field": "a"}},
    ]


def test_post_init_may_refuse_with_a_code(talk):
    assert talk.run("Add", {"a": 97}) == [
        7,
        1,
        {"code": "no-97", "message": "a must not be 97", "data": [97]},
    ]


class Careless(CommandError):
    """Forgets to call `CommandError.__init__`."""

    def __init__(self):
        pass


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (CommandError(5, "why"), "TypeError: an error's code must be text, not `int`"),
        (
            CommandError("a", KeyError("b")),
            "TypeError: an error's message must be text, not `KeyError`",
        ),
        (
            CommandError("a\ud800", "why"),
            "ValueError: text with a lone surrogate - at `$.code`",
        ),
        (
            CommandError("a", "why" * 1000),
            "FrameTooLarge: the frame has 3022 bytes, the limit is 2000",
        ),
        (
            CommandError("a", "why" * 1000, 1j),
            "TypeError: data is a value of type `complex`; without an annotation only None, bool, "
            "int, float, str, bytes, list and dict are carried",
        ),
        (Careless(), "AttributeError: 'Careless' object has no attribute 'message'"),
    ],
)
def test_refusal_that_can_not_be_sent_is_an_internal_error(caplog, error, why):
    talk = Conversation(caplog, max_answer=2000)
    expected = {"code": "internal", "message": f"Do refused, and why can't be sent: {why}"}
    assert talk.run("Do", ctx=raises(error)) == [7, 1, expected]
    assert talk.logged == ["the error of Do can't be sent"]
    assert caplog.records[0].exc_info[0] is not None


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (date(2024, 1, 1), "data is a value of type `date`; without an annotation only None, bool"),
        ([{"at": 1j}], "data[0]['at'] is a value of type `complex`; without an annotation"),
        ((1, 2), "data is a tuple; without an annotation"),
        ({"at": (1, 2)}, "data['at'] is a tuple; without"),
        ({1: 2}, "data has a key that must be a str, not 1"),
        ({1}, "data is a value of type `set`; without"),
        (Codes.NO_LEVEL, "data is a value of type `Codes`; without"),
        (2**64, "an integer outside -2^63 to 2^64-1 - at `$.data`"),
        ("\ud800", "text with a lone surrogate - at `$.data`"),
        (SELF, "data is nested too deeply, or holds itself"),
        (bytes(3000), "the frame has 3044 bytes, the limit is 2000"),
    ],
)
def test_error_keeps_its_code_where_its_data_can_not_be_sent(caplog, data, why):
    talk = Conversation(caplog, max_answer=2000)
    [call_id, kind, error] = talk.run("Do", ctx=raises(CommandError("no-level", "no, sorry", data)))
    assert (call_id, kind, error["code"]) == (7, 1, "no-level")
    assert error["message"].startswith(f"no, sorry (its data can't be sent: {why}")
    assert error.keys() == {"code", "message"}
    assert talk.logged == ["the error of Do can't be sent"]
    assert caplog.records[0].exc_info[0] is not None


def test_message_with_a_lone_surrogate_is_sent_escaped(talk):
    assert talk.run("Do", ctx=raises(CommandError("a", "no file \udcff", None))) == [
        7,
        1,
        {"code": "a", "message": r"no file \udcff"},
    ]
    assert talk.logged == []


@pytest.mark.parametrize(
    "error",
    [
        CommandError("a", "\U0001f600" * 3000),
        CommandError("a", "why", {"\U0001f600" * 1000: {"\U0001f600" * 1000: 1j}}),
        CommandError("a", "why", type("\U0001f600" * 3000, (), {})()),
    ],
)
def test_client_is_told_something_whatever_the_limit(caplog, error):
    talk = Conversation(caplog, max_answer=1)
    name = "\U0001f600" * 60_000
    call = talk.take(name)
    frame = reply_error(call, error, talk.protocol, talk.log)
    assert len(frame) <= LEAST_ERROR
    assert talk.read(frame)[2]["code"] == ("internal" if error.data is None else "a")


# ---------------------------------------------------------------------------------------------
# Commands that fail


class Ill(Exception):
    def __str__(self):
        raise ZeroDivisionError


class VeryIll(Exception):
    def __str__(self):
        raise GeneratorExit


class Panic(BaseException):
    pass


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
        (KeyError("a"), "KeyError: 'a'"),
        (RuntimeError(), "RuntimeError"),
        (OSError(2, "No such file", "a\udcff"), r"[Errno 2] No such file: 'a\udcff'"),
        (RuntimeError("\ud800"), r"RuntimeError: \ud800"),
        (RuntimeError("x" * 10_000), f"RuntimeError: {'x' * 500}…"),
        (Ill(), "Ill: (its text can't be shown)"),
        (VeryIll(), "VeryIll: (its text can't be shown)"),
        (GeneratorExit(), "GeneratorExit"),
        (Panic("at byte 3"), "Panic: at byte 3"),
        (RecursionError("deep"), "RecursionError: deep"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_command_that_raises_is_an_internal_error_with_its_traceback_in_the_log(talk, error, words):
    [call_id, kind, body] = talk.run("Do", ctx=raises(error))
    assert (call_id, kind, body["code"]) == (7, 1, "internal")
    assert body["message"].startswith("Do raised ")
    assert body["message"].endswith(words)
    assert talk.logged == ["the command Do raised"]
    assert talk.caplog.records[0].exc_info[1] is error
    assert talk.caplog.records[0].levelno == logging.ERROR


def test_post_init_that_fails_is_an_internal_error(talk):
    expected = {"code": "internal", "message": "Add raised KeyError: 'a must not be 98'"}
    assert talk.run("Add", {"a": 98}) == [7, 1, expected]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (5, "TypeError: Do's answer must be a list, not 5"),
        (
            [1j],
            "TypeError: Do's answer[0] is a value of type `complex`; without an annotation only "
            "None, bool, int, float, str, bytes, list and dict are carried",
        ),
        ([2**64], "ValueError: an integer outside -2^63 to 2^64-1 - at `$[0]`"),
        (["\ud800"], "ValueError: text with a lone surrogate - at `$[0]`"),
        (SELF, "ValueError: Do's answer is nested too deeply, or holds itself"),
    ],
)
def test_answer_that_can_not_be_carried_is_an_internal_error(talk, answer, words):
    message = f"the answer of Do is not what its annotation promises: {words}"
    expected = {"code": "internal", "message": message}
    assert talk.run("Do", ctx=lambda: answer) == [7, 1, expected]
    assert talk.logged == ["the answer of Do can't be sent"]
    assert talk.caplog.records[0].exc_info[0] is not None


def test_answer_over_the_limit_is_an_error(caplog):
    talk = Conversation(caplog, max_answer=1000)
    sentence = "the frame has 2007 bytes, the limit is 1000"
    expected = {"code": "too-large", "message": f"the answer of Do: {sentence}"}
    assert talk.run("Do", ctx=lambda: [bytes(2000)]) == [7, 1, expected]
    assert talk.logged == [f"the answer of Do can't be sent: {sentence}"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupt_comes_through(talk, error):
    with pytest.raises(error):
        talk.run("Do", ctx=raises(error()))
    assert 7 in talk.protocol.calls  # it can still be answered
    assert talk.logged == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupt_while_the_answer_is_made_comes_through(talk, monkeypatch, error):
    monkeypatch.setattr(talk.protocol, "answer", lambda *_: raises(error())())
    with pytest.raises(error):
        talk.run("Do", ctx=list)
    assert 7 in talk.protocol.calls


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupt_while_the_error_is_made_comes_through(talk, monkeypatch, error):
    monkeypatch.setattr(talk.protocol, "error", lambda *_: raises(error())())
    with pytest.raises(error):
        talk.fail(Busy("full"))
    assert 7 in talk.protocol.calls


# ---------------------------------------------------------------------------------------------
# Notifications that fail


def test_notification_that_raises_goes_to_the_log(talk):
    assert talk.run("Do", ctx=raises(KeyError("a")), call_id=None) is None
    assert talk.logged == [
        "the command Do raised",
        "the notification Do failed: InternalError: Do raised KeyError: 'a' [internal]",
    ]


def test_notification_that_refuses_goes_to_the_log(talk):
    error = CommandError("no-level", "there is no level 9")
    assert talk.run("Do", ctx=raises(error), call_id=None) is None
    assert talk.logged == [
        "the notification Do failed: CommandError: there is no level 9 [no-level]"
    ]


def test_notification_with_wrong_fields_goes_to_the_log(talk):
    assert talk.run("Add", {"a": "2"}, call_id=None) is None
    assert talk.logged == [
        "the notification Add failed: InvalidArguments: "
        "Add.a must be an int, not '2' [invalid-arguments]"
    ]


def test_notifications_of_made_up_names_are_one_kind_of_mishap(talk):
    """Or a client could fill the log, and the memory of what was logged."""
    for i in range(300):
        assert talk.run(f"Frobnicate{i}" * 1000, call_id=None) is None
    name = ("Frobnicate0" * 1000)[:80]
    assert talk.logged == [
        f"the notification {name} failed: UnknownCommand: "
        f"the server has no command `{name}` [unknown-command]"
    ]
    assert sum(map(len, talk.log._kinds)) < 100


def test_refusal_of_a_notification_is_logged(talk):
    assert talk.fail(UnknownCommand("no"), call_id=None) is None
    assert talk.logged == ["the notification Do failed: UnknownCommand: no [unknown-command]"]


# ---------------------------------------------------------------------------------------------
# Calls that are not run any more


@pytest.mark.parametrize(
    ("timeout", "cancelled", "waited", "message"),
    [
        (None, False, 1e9, None),
        (5.0, False, 0.0, None),
        (5.0, False, 5.0, None),
        (5.0, False, 5.01, "the call's time limit of 5 s passed before its turn"),
        (0.0, False, 0.0, None),
        (0.25, False, 0.3, "the call's time limit of 0.25 s passed before its turn"),
        (None, True, 0.0, "the call was cancelled before its turn"),
        (5.0, True, 9.0, "the call was cancelled before its turn"),
    ],
)
def test_call_is_not_run_when_nobody_waits_for_it(timeout, cancelled, waited, message):
    why = cancelled_before_its_turn(Call(7, "Do", {}, timeout, cancelled), waited)
    assert (None if why is None else why.message) == message
    assert why is None or why.code == "cancelled"


def test_call_of_a_client_that_went_away_is_cancelled():
    assert ABANDONED.code == "cancelled"


def test_log_shows_at_most_40_characters_of_a_value(talk):
    secret = "x" * 40 + "secret" * 100
    fail_of = {"a": secret}
    assert talk.run("Add", fail_of, call_id=None) is None
    [line] = talk.logged
    assert f"Add.a must be an int, not '{'x' * 40}'…" in line
    assert "secret" not in line
