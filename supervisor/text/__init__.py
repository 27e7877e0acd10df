"""Values formatted for people, and parsed from text that people wrote.  Pure."""
