"""The root window of the examples of Tk."""

import tkinter
from types import TracebackType


class Root(tkinter.Tk):
    """A window that Ctrl-C ends, also in a callback: Tk by itself would print it and go on."""

    def report_callback_exception(
        self, exc: type[BaseException], val: BaseException, tb: TracebackType | None
    ) -> object:
        if isinstance(val, KeyboardInterrupt):
            raise val
        return super().report_callback_exception(exc, val, tb)
