"""The slots that claim and run jobs, each with a warm child process.  Runs in the parent."""
