"""Implementations of `JobServer`, one package for each protocol.  Runs in the parent."""
