"""Messages to the program's classes and back: annotations, values, what `process` may return.

May import: _shown, errors, _wire.
Never: a socket, a clock, a thread; who calls, and over what.
"""
