"""One run of the program as a whole: opened, told of to systemd, steered, reloaded, shut down.  Runs in the parent."""
