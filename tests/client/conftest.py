"""Fixtures that the tests of clients share."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness import COMMANDS
from serving import Find, Serving

from ipcpoll import Server


@pytest.fixture
def serving(make_server: Callable[..., Server[Any]]) -> Iterator[Serving]:
    """A server that answers by itself."""
    serving = Serving(make_server([*COMMANDS, Find]))
    yield serving
    serving.stop()
