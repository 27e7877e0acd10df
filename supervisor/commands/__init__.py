"""Commands beside `run` that are no part of the worker: each has a file, and `cli` calls it."""
