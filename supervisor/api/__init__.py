"""The job server's protocol over HTTP: requests, answers, and what each of them means.  Runs in the parent."""
