"""Bytes to messages and back: where a frame ends, what CBOR holds, which message is legal when.

May import: errors, limits.
Never: a socket, a clock, a thread; a class of the program. Time comes in as an argument.
"""
