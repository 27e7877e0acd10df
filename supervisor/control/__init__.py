"""Access to the running program for operators: the control socket, the HTTP address of `--listen`, and their client."""
