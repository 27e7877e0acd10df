"""A local job server with the same protocol, over SQLite: for the authors of handlers, and for the tests."""
