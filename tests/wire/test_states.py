"""The two tables, every pair of each; `test_protocol` walks what the protocol makes of them."""

import pytest
from wire import CALL_PICTURE, LINK_PICTURE, pairs

from ipcpoll._wire.states import (
    CALL,
    LINK,
    CallEvent,
    CallState,
    IllegalTransition,
    Link,
    LinkEvent,
    step,
)


def transitions():
    for table, states, events, picture in (
        (LINK, Link, LinkEvent, LINK_PICTURE),
        (CALL, CallState, CallEvent, CALL_PICTURE),
    ):
        for state, event, follow in pairs(picture):
            expected = None if follow is None else states[follow]
            yield pytest.param(table, states[state], events[event], expected, id=f"{state}-{event}")


@pytest.mark.parametrize(("table", "state", "event", "follow"), list(transitions()))
def test_pair(table, state, event, follow):
    if follow is None:
        with pytest.raises(IllegalTransition, match=f"^{event.name} in state {state.name}$"):
            step(table, state, event)
    else:
        assert step(table, state, event) is follow


@pytest.mark.parametrize(
    ("states", "events", "picture"),
    [(Link, LinkEvent, LINK_PICTURE), (CallState, CallEvent, CALL_PICTURE)],
)
def test_pictures_hold_every_pair(states, events, picture):
    expected = {(state.name, event.name) for state in states for event in events}
    assert {(state, event) for state, event, _ in pairs(picture)} == expected
    assert len(list(pairs(picture))) == len(expected)


def test_closed_connection_stays_closed():
    assert set(LINK[Link.CLOSED].values()) == {Link.CLOSED}


@pytest.mark.parametrize("event", CallEvent)
def test_call_is_answered_exactly_once(event):
    """Behind an answer no second one is legal, whatever comes, until the id is called again."""
    state = CALL[CallState.NONE].get(event, CallState.NONE)
    assert (CallEvent.ANSWER in CALL[state]) is (event is CallEvent.CALL)
