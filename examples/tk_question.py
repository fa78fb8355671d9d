"""A window with questions that other processes put to the person in front of it. Needs Tk.

    $ python tk_question.py &
    $ python tk_question.py ask "Is the kettle on?" yes no &     waits for the click, and prints it
    $ python tk_question.py waiting                              the questions that are open

Several wait in a row. A client that goes away, by Ctrl-C for example, takes its question along.
"""

from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

import shell
from msgspec import Meta

import ipcpoll

if TYPE_CHECKING:
    import subprocess

with shell.needs("apt-get install python3-tk"):
    import tkinter

    import tk_window

    from ipcpoll.adapters import tk_loop

NOTHING = "Nobody asks anything."
Text = Annotated[str, Meta(min_length=1, max_length=200)]


class Window:
    """Shows the first of the questions, with a button for each answer."""

    def __init__(self, root: tkinter.Tk) -> None:
        self.root = root
        self.questions: dict[Future[str], Ask] = {}
        self.shown: Future[str] | None = None
        root.title("Questions")
        self.text = tkinter.Label(root, text=NOTHING, width=50, wraplength=360, pady=24)
        self.text.pack()
        self.buttons = tkinter.Frame(root, pady=12)
        self.buttons.pack()

    def put(self, question: "Ask") -> Future[str]:
        future: Future[str] = Future()
        self.questions[future] = question
        future.add_done_callback(self.take_off)
        self.show()
        return future

    def take_off(self, future: Future[str]) -> None:
        """It is answered; or cancelled, as nobody waits for the answer any more."""
        del self.questions[future]
        self.show()

    def show(self) -> None:
        first = next(iter(self.questions), None)
        if first is self.shown:
            return  # its buttons stay as they are: one may be pressed just now
        self.shown = first
        for button in self.buttons.winfo_children():
            button.destroy()
        if first is None:
            self.text["text"] = NOTHING
            return
        self.text["text"] = self.questions[first].question
        for answer in self.questions[first].answers:
            click = partial(first.set_result, answer)
            tkinter.Button(self.buttons, text=answer, command=click).pack(side="left")


@dataclass
class Ask:
    """Ask the person; the answer is that of the button."""

    question: Text
    answers: Annotated[list[Text], Meta(min_length=1, max_length=6)]

    def process(self, ctx: Window) -> Future[str]:
        return ctx.put(self)


@dataclass
class Waiting:
    """Answer which questions are open, the one in the window first."""

    def process(self, ctx: Window) -> list[str]:
        return [each.question for each in ctx.questions.values()]


@contextmanager
def opened(address: str) -> Generator[Window]:
    root = tk_window.Root()
    root.protocol("WM_DELETE_WINDOW", root.quit)  # the questions end before the window does
    with ipcpoll.Server(address, Ask | Waiting) as server:
        window = Window(root)
        tk_loop.attach(server, window, root)
        yield window
    root.destroy()


def run(address: str) -> None:
    with opened(address) as window:
        window.root.mainloop()


def check() -> None:
    """Let clients ask, and press the buttons."""
    with shell.Processes(__file__) as clients, opened(clients.address) as window:

        def until(true: Callable[[], bool]) -> None:
            while not true():
                window.root.update()

        def start(number: int, *words: str) -> "subprocess.Popen[str]":
            client = clients.start("ask", *words)
            until(lambda: len(window.questions) == number)
            return client

        def press(answer: str) -> None:
            [button] = [
                each for each in window.buttons.winfo_children() if each.cget("text") == answer
            ]
            window.root.tk.call(str(button), "invoke")

        def output(client: "subprocess.Popen[str]") -> str:
            until(lambda: client.poll() is not None)
            return client.communicate()[0]

        first = start(1, "Tea?", "yes", "no")
        second, third = start(2, "Milk?", "yes", "no"), start(3, "Sugar?", "one", "two")
        assert output(clients.start("waiting")) == "Tea?\nMilk?\nSugar?\n"
        assert window.text["text"] == "Tea?"
        second.terminate()
        until(lambda: len(window.questions) == 2)
        press("no")
        assert window.text["text"] == "Sugar?"
        assert output(first) == "no\n"
        press("two")
        assert output(third) == "two\n"
        assert window.text["text"] == NOTHING
        assert not window.buttons.winfo_children()


if __name__ == "__main__":
    line = shell.CommandLine(__doc__, run, address="tk-question", check=check)
    line.add_commands(Ask, timeout=None)
    line.add_commands(Waiting)
    line.main(tkinter.TclError)
