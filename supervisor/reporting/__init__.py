"""Delivery of outcomes to the server, and the spool on disk for outcomes that it has not accepted."""
