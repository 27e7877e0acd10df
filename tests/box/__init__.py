"""A box in which this machine's systemd runs for a test: everything in it is gone when it ends."""
