"""The worker protocol over HTTP.  Runs in the parent."""
