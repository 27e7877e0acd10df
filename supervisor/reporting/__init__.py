"""Delivery of outcomes to the server, and their storage on disk until the server has them.  Runs in the parent."""
