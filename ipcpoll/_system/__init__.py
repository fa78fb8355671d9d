"""What the kernel and the interpreter give: descriptors, timers, forks, credentials, the log.

May import: _shown, errors, limits.
Never: a frame, a command.
"""
