"""The example handlers, and the place for your own: every `*.py` file and every package in this folder is imported.

A module is imported by its plain name (`import words`, not `import handlers.words`); one whose name begins with `_` is
a helper of the others and is not imported on its own.  One that fails takes only its own handlers with it.
"""
