"""A local job server with the same protocol, backed by SQLite, for authors of handlers and for the tests."""
