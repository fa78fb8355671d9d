"""The log: one line of a kind in a time, no line of the client's making, and it never fails."""

import logging

import pytest

from ipcpoll._system.log import MOST_SHOWN, MOST_TRACEBACKS, Log, describe, logger


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def mishaps(clock):
    return Log(clock, 60.0)


@pytest.fixture
def lines(caplog):
    return lambda: [record.getMessage() for record in caplog.records]


def test_it_is_the_logger_of_the_package(mishaps, caplog):
    mishaps.warning("kind", "what happened")
    [record] = caplog.records
    assert (record.name, record.levelno, record.getMessage()) == (
        "ipcpoll",
        logging.WARNING,
        "what happened",
    )


def test_exception_comes_with_its_traceback(mishaps, caplog):
    try:
        raise KeyError("a")
    except KeyError as error:
        caught = error
    mishaps.exception("kind", "what happened", caught)
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info == (KeyError, caught, caught.__traceback__)
    assert "raise KeyError" in caplog.text


def test_hazard_67_one_line_of_a_kind_in_a_time_and_the_others_are_counted(mishaps, clock, lines):
    for i in range(5):
        mishaps.warning("kind", f"number {i}")
    clock.now += 59.9
    mishaps.warning("kind", "number 5")
    assert lines() == ["number 0"]
    clock.now += 0.1
    mishaps.warning("kind", "number 6")
    assert lines()[1:] == ["number 6 (5 more of this kind in the last 60 s)"]
    clock.now += 100
    mishaps.warning("kind", "number 7")
    assert lines()[2:] == ["number 7"]


def raised(function, *arguments):
    """Return what a function raises, with its traceback."""
    try:
        function(*arguments)
    except Exception as error:
        return error
    raise AssertionError("it did not raise")


def fails_at_two_places(first):
    if first:
        raise ValueError("the same words")
    raise ValueError("the same words")


def calls(first):
    if first:
        fails_at_two_places(True)
    fails_at_two_places(True)


def fails_for(reason):
    try:
        raise reason
    except Exception:
        raise ValueError("the same words") from reason


def fails_within(depth):
    if depth:
        fails_within(depth - 1)
    raise RecursionError


def test_each_traceback_is_a_kind_and_is_counted_apart(mishaps, clock, lines):
    """At another place, by another way, for another reason, of another type."""
    errors = [
        raised(fails_at_two_places, True),
        raised(fails_at_two_places, False),
        raised(calls, True),
        raised(calls, False),
        raised(fails_for, KeyError()),
        raised(fails_for, OSError()),
    ]
    for error in errors * 3:
        mishaps.exception("kind", str(errors.index(error)), error)
    assert lines() == ["0", "1", "2", "3", "4", "5"]
    mishaps.exception("other", "another command", errors[0])
    assert lines()[6:] == ["another command"]
    clock.now += 60
    mishaps.exception("kind", "1", errors[1])
    assert lines()[7:] == ["1 (2 more of this kind in the last 60 s)"]


def test_the_same_traceback_is_no_other_however_often_it_was_raised_or_deep(mishaps, lines):
    for depth in (2, 5, 50):
        mishaps.exception("kind", f"depth {depth}", raised(fails_within, depth))
    assert lines() == ["depth 2"]


def test_chain_that_has_no_end_is_cut(mishaps, lines):
    error, other = raised(calls, True), raised(calls, False)
    error.__cause__, other.__cause__ = other, error
    mishaps.exception("kind", "first", error)
    mishaps.exception("kind", "again", error)
    assert lines() == ["first"]
    error.__cause__ = other.__cause__ = None


def test_hazard_67_tracebacks_that_are_told_apart_are_bounded(mishaps, clock, lines):
    """A client that can choose which way a command goes can't fill the log."""
    errors = []
    for number in range(100):
        namespace = {}
        exec(compile("\n" * number + "def fail(): raise ValueError", "f", "exec"), namespace)
        errors.append(raised(namespace["fail"]))
    for number, error in enumerate(errors):
        mishaps.exception("kind", str(number), error)
    assert lines() == [str(number) for number in range(MOST_TRACEBACKS + 1)]
    mishaps.exception("other", "another command", errors[0])
    assert lines()[-1] == "another command"
    clock.now += 60
    mishaps.exception("kind", "later", errors[-1])
    assert lines()[-1] == "later"
    del errors


def test_kinds_are_counted_apart(mishaps, lines):
    mishaps.warning("one", "a")
    mishaps.exception("two", "b", ValueError())
    mishaps.warning("one", "c")
    assert lines() == ["a", "b"]


def test_time_of_zero_writes_every_line(clock, lines):
    mishaps = Log(clock, 0.0)
    for i in range(3):
        mishaps.warning("kind", str(i))
    assert lines() == ["0", "1", "2"]


def test_clock_that_starts_at_zero_holds_nothing_back(lines):
    Log(lambda: 0.0, 60.0).warning("kind", "first")
    assert lines() == ["first"]


def test_kinds_that_are_kept_are_bounded(mishaps, clock, lines):
    for i in range(1000):
        mishaps.warning(f"kind {i}", str(i))
    assert len(lines()) == 1000
    assert len(mishaps._kinds) <= 256


def test_known_kind_forgets_no_other(mishaps, clock, lines):
    for i in range(256):
        mishaps.warning(f"kind {i}", str(i))
    mishaps.warning("kind 5", "held back")
    clock.now += 60
    mishaps.warning("kind 7", "again")
    mishaps.warning("kind 5", "again")
    assert lines()[256:] == ["again", "again (1 more of this kind in the last 60 s)"]


def test_long_message_is_cut(mishaps, lines):
    mishaps.warning("kind", "x" * 10_000)
    assert lines() == ["x" * (MOST_SHOWN + 100)]


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("a\nERROR root: all is lost", r"a\nERROR root: all is lost"),
        ("a\r\x1b[2J", r"a\r\x1b[2J"),
        ("a\u2028b\x00", r"a\u2028b\x00"),
        ("no file \udcff", r"no file \udcff"),
        ("größer 😀 100 %s %d", "größer 😀 100 %s %d"),
    ],
)
def test_message_is_one_line_that_any_handler_can_write(mishaps, lines, message, shown):
    mishaps.warning("kind", message)
    assert lines() == [shown]


class Panic(BaseException):
    pass


@pytest.fixture
def break_the_handler(monkeypatch):
    def set_error(error):
        def emit(record):
            raise error

        handler = logging.Handler()
        handler.emit = emit
        monkeypatch.setattr(logger, "handlers", [handler])

    return set_error


@pytest.mark.parametrize(
    "error", [OSError("disk full"), RecursionError(), Panic(), GeneratorExit()]
)
def test_handler_that_fails_is_passed_over(mishaps, clock, lines, break_the_handler, error):
    break_the_handler(error)
    mishaps.warning("kind", "what happened")
    mishaps.exception("other", "what happened", error)
    logger.handlers.clear()
    mishaps.warning("kind", "again")
    clock.now += 60
    mishaps.warning("kind", "again")
    assert lines() == ["again (1 more of this kind in the last 60 s)"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupt_in_a_handler_comes_through(mishaps, break_the_handler, error):
    break_the_handler(error())
    with pytest.raises(error):
        mishaps.warning("kind", "what happened")


class Ill(Exception):
    def __init__(self, error):
        self.error = error

    def __str__(self):
        raise self.error


class NoText(Exception):
    def __str__(self):
        return 5  # noqa: PLE0307 - what is tested


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("why"), "ValueError: why"),
        (ValueError(), "ValueError"),
        (KeyError("a"), "KeyError: 'a'"),
        (Ill(ValueError()), "Ill: (its text can't be shown)"),
        (Ill(Panic()), "Ill: (its text can't be shown)"),
        (NoText(), "NoText: (its text can't be shown)"),
        (ValueError("x" * MOST_SHOWN), "ValueError: " + "x" * MOST_SHOWN),
        (ValueError("x" * (MOST_SHOWN + 1)), "ValueError: " + "x" * MOST_SHOWN + "…"),
        (ValueError("\udcff"), r"ValueError: \udcff"),
    ],
)
def test_exception_is_described_whatever_its_text(error, words):
    assert describe(error) == words


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupt_in_a_text_comes_through(error):
    with pytest.raises(error):
        describe(Ill(error()))
