"""The clients: to wait, to poll inside a loop, to await; what is known where no answer came.

May import: _shown, errors, limits, _wire, _schema, _system, _address, _attach.
Never: the server.
"""
