"""The program's own log: configuration, redaction of secrets, and the writer."""
