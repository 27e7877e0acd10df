"""How things are written for people, and read when people have written them.  Pure."""
