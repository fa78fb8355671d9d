"""The conformance suite bites: broken adapters, each with the cases that must find it out.

Each breakage is one that was made in earnest somewhere, or an obvious shortcut. The loop is the
one of tests/attach/case_select.py.
"""

from __future__ import annotations

import select
import selectors
import time
import weakref
from typing import Any, ClassVar

import case_select
import pytest

from ipcpoll import UsageError
from ipcpoll.adapters.select_loop import SelectorAttachment
from ipcpoll.testing import AdapterConformance, late, suite

pytestmark = pytest.mark.once

CASES = AdapterConformance.cases()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What hangs is found out soon: the longest case of a good adapter takes 1.2 seconds."""
    for module in (suite, late):
        monkeypatch.setattr(module, "PATIENCE", 1.6)


class Reporting(SelectorAttachment):
    """A good adapter, for a loop that tells its host of exceptions in a list."""

    told: ClassVar[list[BaseException]] = []
    loop: Any

    def _report(self, error: Exception) -> None:
        self.told.append(error)


class Suite(case_select.SelectConformance):
    """The suite, with the adapter that is being looked at."""

    adapter: type[Reporting] = Reporting
    reports_errors = True
    has_window = True
    screen = 0

    def open_loop(self) -> None:
        super().open_loop()
        self.adapter.told.clear()

    def show(self, number: int) -> None:
        """Draw a bit later, as windows do."""
        self.loop.call_later(0, lambda: setattr(self, "screen", number))

    def shown(self) -> int:
        return self.screen

    def attach(self, pollable: Any, ctx: Any, *, max_seconds: float | None = None) -> Reporting:
        self.adapter.loop = self.loop
        return self.adapter(pollable, ctx, self.loop.selector, max_seconds)

    def reported(self) -> list[BaseException]:
        return list(self.adapter.told)


def failure(adapter: type[Reporting], case: str, **attributes: Any) -> BaseException | None:
    """Run a case on an adapter; return what made it fail."""
    suite = type("Broken", (Suite,), {"adapter": adapter, **attributes})()
    suite.setup_method()
    problem: BaseException | None = None
    try:
        getattr(suite, case)()
    except Exception as error:
        problem = error
    finally:
        try:
            suite.teardown_method()
        except Exception as error:
            problem = problem or error
    return problem


# ---------------------------------------------------------------------------------------------
# Broken adapters. Each says in `found_by` which cases must fail.

BROKEN: list[type[Reporting]] = []


def broken(*cases: str, **attributes: Any) -> Any:
    def note(cls: Any) -> Any:
        cls.found_by = [f"test_{case}" for case in cases]
        cls.attributes = attributes
        BROKEN.append(cls)
        return cls

    return note


@broken(
    "pause_resume_detach_in_every_order_twice",
    "server_closed_in_a_command",
    "new_servers_on_the_same_descriptor_number",
    "attachment_as_a_context_manager",
)
class NeverUnwatches(Reporting):
    """Detaching is forgotten."""

    def _unwatch(self) -> None:
        pass

    def _forget(self) -> None:
        pass


@broken("pause_resume_detach_in_every_order_twice", "detached_in_a_command")
class WatchesAfterDetach(Reporting):
    """It looks detached, and the loop still calls it."""

    def _unwatch(self) -> None:
        pass

    def _watch(self) -> None:
        if self._fd not in self._selector.get_map():
            super()._watch()

    def _serve(self) -> bool:
        if self._pollable.fileno() >= 0:
            self._pollable.poll(self._ctx, max_seconds=self._max_seconds)
        return False


@broken("poll_is_looked_up_each_time")
class BoundAtAttachTime(Reporting):
    """A bound method is kept, as most loops suggest."""

    def _watch(self) -> None:
        self._bound = self._pollable.poll
        super()._watch()

    def _serve(self) -> bool:
        try:
            self._bound(self._ctx, max_seconds=self._max_seconds)
        except Exception as error:
            self._report(error)
        return False


@broken("context_and_budget_reach_poll", "100_pipelined_frames_with_one_command_a_poll")
class IgnoresMaxSeconds(Reporting):
    def __init__(self, pollable: Any, ctx: Any, selector: Any, _: object) -> None:
        super().__init__(pollable, ctx, selector, None)


@broken("exception_of_poll_is_reported_and_the_watch_goes_on")
class LetsExceptionsOut(Reporting):
    def _report(self, error: Exception) -> None:
        raise error


@broken("exception_of_poll_is_reported_and_the_watch_goes_on")
class SwallowsExceptions(Reporting):
    def _report(self, error: Exception) -> None:
        pass


@broken("exception_of_poll_is_reported_and_the_watch_goes_on")
class DetachesAfterAnException(Reporting):
    """As Twisted does with a reader that raises."""

    def _report(self, error: Exception) -> None:
        super()._report(error)
        self.detach()


@broken(
    "idle_second_without_a_poll",
    "slow_writer_and_a_client_that_does_not_read",
    "late_calls_wait_without_a_poll",
)
class PollsOnATimer(Reporting):
    """Instead of watching."""

    def _watch(self) -> None:
        self._turn()

    def _turn(self) -> None:
        if self._watching:
            self._serve()
            self.loop.call_later(0.01, self._turn)

    def _unwatch(self) -> None:
        pass


@broken("idle_second_without_a_poll")
class Spins(Reporting):
    """It asks again as soon as it was asked."""

    def _watch(self) -> None:
        super()._watch()
        self._again()

    def _again(self) -> None:
        if self._watching:
            self._serve()
            self.loop.call_later(0.0001, self._again)


@broken(
    "round_trip",
    "command_that_raises",
    "two_servers_in_one_loop",
    "loop_stopped_and_started_again",
    "connection_that_ends_in_its_command",
    "late_call_of_a_client_that_goes",
)
class DropsTheWatchAfterTheFirstEvent(Reporting):
    """As GLib does when a callback returns None."""

    def _serve(self) -> bool:
        super()._serve()
        if self._watching:
            self._unwatch()
        return False

    def _unwatch(self) -> None:
        if self._fd in (self._selector.get_map() or {}):
            super()._unwatch()


@broken("work_that_is_left_is_done_between_timers")
class EdgeTriggered(Reporting):
    """And polls only once for each edge."""

    def _watch(self) -> None:
        super()._watch()
        self._selector._selector.modify(self._fd, select.EPOLLIN | select.EPOLLET)


@broken(
    "work_that_is_left_is_done_between_timers",
    "flood_does_not_stop_the_loop",
    "flood_does_not_stop_the_redraws",
    "generator_is_stepped_between_timers",
    "server_closed_with_late_calls_in_flight",
)
class DrainsAll(Reporting):
    """Polls until nothing is left."""

    def _serve(self) -> bool:
        while super()._serve():
            pass
        return False


@broken(
    "asynchronous_command",
    "asynchronous_generator",
    "command_that_closes_the_server_and_answers",
    runs_coroutines=True,
)
class RunsNoCoroutines(Reporting):
    """It says that it does."""


@broken("flood_does_not_stop_the_loop")
class WaitsForMore(Reporting):
    """Keeps the loop for more than half a second, since where one call came there is another."""

    def _serve(self) -> bool:
        end = time.monotonic() + 0.6
        while time.monotonic() < end:
            super()._serve()
        return False


@broken("nested_loop_in_a_command")
class GuardsByReturning(Reporting):
    """The inner loop finds the descriptor ready, and nobody polls: it spins."""

    inside = False

    def _serve(self) -> bool:
        if self.inside:
            return False
        self.inside = True
        try:
            return super()._serve()
        finally:
            self.inside = False


@broken("nested_loop_in_a_command", "work_comes_again_and_again_while_the_loop_is_nested")
class PausesWhileItPolls(Reporting):
    """The inner loop is deaf."""

    def _serve(self) -> bool:
        if not self._watching:
            return False
        self._unwatch()
        try:
            return super()._serve()
        finally:
            if self._watching:
                self._watch()


class Unknown(Reporting):
    """The pollable does not know of it."""

    def __init__(self, pollable: Any, *rest: Any) -> None:
        super().__init__(pollable, *rest)
        pollable.attachments.discard(self)


@broken("new_servers_on_the_same_descriptor_number")
class IsNotHeld(Unknown):
    pass


class _Weakly:
    """What a loop makes of a callback that it does not hold."""

    def __init__(self, attachment: Any) -> None:
        self.reference = weakref.ref(attachment)

    def __call__(self, *_: object) -> None:
        attachment = self.reference()
        if attachment is not None:
            attachment()


@broken("every_reference_forgotten")
class IsHeldByNobody(Unknown):
    """Collected at once, and the loop spins."""

    def _watch(self) -> None:
        self._key = self._selector.register(self._fd, selectors.EVENT_READ, _Weakly(self))

    def _unwatch(self) -> None:
        self._selector.unregister(self._fd)


@broken("descriptor_above_1023", selector=selectors.SelectSelector)
class NoLowCopy(Reporting):
    def _watch(self) -> None:
        self._key = self._selector.register(self._fd, selectors.EVENT_READ, self)


@broken("loop_that_ends_before_the_server_is_closed")
class AsksADeadLoop(Reporting):
    def _unwatch(self) -> None:
        self._selector.unregister(self._fd)


@broken("fork_in_the_host")
class UnwatchesInTheChild(Reporting):
    """The epoll set is the parent's too."""

    def abandon(self) -> None:
        self._selector._selector.unregister(self._fd)
        super().abandon()


@broken("two_servers_in_one_loop")
class OneForAll(Reporting):
    """The context of whoever came last, in the class instead of the attachment."""

    last: Any

    def __init__(self, pollable: Any, ctx: Any, selector: Any, max_seconds: Any) -> None:
        type(self).last = ctx
        super().__init__(pollable, ctx, selector, max_seconds)

    def _serve(self) -> bool:
        self._ctx = type(self).last
        return super()._serve()


@broken(
    "server_closed_by_the_command_of_another",
    "taken_out_while_its_turn_waits",
    "pollable_that_closes_itself_and_knows_no_attachments",
)
class BelievesInStaleEvents(Reporting):
    """A loop found two ready, and the first has closed the second."""

    def _serve(self) -> bool:
        self._pollable.poll(self._ctx, max_seconds=self._max_seconds)
        return False


@broken("second_attachment_to_the_same_loop")
class TakesASecond(Reporting):
    """As most loops do: the second reader takes the first one's place, or both are kept."""

    def _loop_id(self) -> object:
        return self

    def _watch(self) -> None:
        if self._fd in self._selector.get_map():
            self._key = self._selector.modify(self._fd, selectors.EVENT_READ, self)
        else:
            super()._watch()


@broken("second_attachment_to_the_same_loop")
class RefusesOnlyWhatIsWatched(Reporting):
    """A paused attachment is forgotten; when it is resumed there are two."""

    def _loop_id(self) -> object:
        return self

    def _watch(self) -> None:
        try:
            super()._watch()
        except UsageError:
            raise UsageError("attached to this loop already") from None


@broken("callback_that_calls_its_own_server", tells_callbacks=True)
class KnowsNoCallbacks(Reporting):
    """It says that it does."""


@broken("attached_again_after_the_loop_has_ended")
class PilesUp(Reporting):
    """Nobody looks whether a loop has ended."""

    def _loop_has_ended(self) -> bool:
        return False


@broken("attached_again_after_the_loop_has_ended")
class OneLoopForAll(PilesUp):
    """The loop that has ended keeps the next one from serving."""

    def _loop_id(self) -> object:
        return type(self)


@broken("loop_sleeps_beside_what_was_taken_out")
class WakesForNothing(Reporting):
    """Taken out it is not polled, and the loop watches its descriptor all the same."""

    def _watch(self) -> None:
        if self._fd not in self._selector.get_map():
            super()._watch()

    def _unwatch(self) -> None:
        pass


@broken("server_that_is_closed_while_a_call_waits", "pause_resume_detach_in_every_order_twice")
class CannotPause(Reporting):
    def pause(self) -> None:
        pass

    def detach(self) -> None:
        super().pause()
        self._forget()


@broken("pause_resume_detach_in_every_order_twice")
class PausesOnce(Reporting):
    """The second time is an error."""

    def pause(self) -> None:
        self._watching = False
        self._selector.unregister(self._fd)


# ---------------------------------------------------------------------------------------------


PAIRS = [
    pytest.param(cls, case, id=f"{cls.__name__}-{case}")
    for cls in BROKEN
    for case in cls.found_by  # type: ignore[attr-defined]
]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("cls", "case"), PAIRS)
def test_broken_adapter_is_found_out(cls: Any, case: str) -> None:
    assert failure(cls, case, **cls.attributes) is not None, f"{case} lets {cls.__name__} pass"


@pytest.mark.parametrize("case", CASES)
def test_good_adapter_passes(case: str) -> None:
    """The loop of this module is not what makes the others fail."""
    problem = failure(Reporting, case)
    if problem is not None:
        raise problem


def test_every_case_bites() -> None:
    """No case that nothing makes fail."""
    found = {case for cls in BROKEN for case in cls.found_by}  # type: ignore[attr-defined]
    assert found == set(CASES)
