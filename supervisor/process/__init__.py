"""The parent's side of its child processes: start, messages, output, exit and control groups."""
