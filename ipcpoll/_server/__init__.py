"""The server: who is let in, whose turn it is, what a command answers, now or later.

May import: _shown, errors, limits, _wire, _schema, _system, _address, _attach.
Never: the client.
"""
