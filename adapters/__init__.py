"""The loops that ipcpoll can be attached to: one module for each, named ``<loop>_loop``.

Nothing is imported here. A program imports the one module that it needs, and with it one loop.
"""
