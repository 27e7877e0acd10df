"""Jobs at work: the slots and their children, one attempt after the other.  Runs in the parent."""
