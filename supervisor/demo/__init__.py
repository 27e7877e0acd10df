"""`make demo`: a local job server, a supervisor and some jobs, shown while they run."""
