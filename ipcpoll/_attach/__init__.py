"""What a main loop holds of a server or a client: the contract of adapters, and their base classes.

May import: _shown, errors, _system.
Never: a server, a client, a loop library.
"""
