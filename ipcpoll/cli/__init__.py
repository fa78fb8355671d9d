"""The command `ipcpoll`: its verbs, how values are read and shown, how it ends.

A verb is a module with a `command`, listed in `main.VERBS`; it is imported when it is asked for.
Needs the extra `ipcpoll[cli]`, but for `dial`.

May import: programs, describe.
Never: what a client of another author could not use. What a program says is shown, never obeyed.
"""
