"""The socket as a file: where a name leads, who may enter, one server for each, birth and death.

May import: _shown, errors, _system.
Never: a frame, a command.
"""
