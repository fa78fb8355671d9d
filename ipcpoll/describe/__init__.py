"""Commands as data: what a program says of itself, and what its classes say for it.

May import: _shown, errors, _wire, _schema.
Never: I/O; a server, a client; a value that is marked secret.
"""

from .command import Describe

__all__ = ["Describe"]
