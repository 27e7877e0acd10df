"""How often, how long, and beside what: the few things that the event loop does not bring."""
