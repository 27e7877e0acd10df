"""Outcomes on their way to the server, by way of the disk where that is worth it.  Runs in the parent."""
