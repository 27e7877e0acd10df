"""Example handlers, and the folder for your own.  The worker imports every `*.py` file and every package in it.

Modules are imported by their plain name (`import words`, not `import handlers.words`).  A module whose name begins
with `_` is not imported by the worker, but other modules may import it.  If a module fails to import, only its own
handlers are missing.
"""
