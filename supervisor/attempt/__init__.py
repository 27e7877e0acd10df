"""One job from its lease to its delivered outcome: execution, heartbeats, events and report.  Runs in the parent."""
