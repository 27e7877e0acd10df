"""`make demo`: a local server, a supervisor and some jobs, shown while they run."""
