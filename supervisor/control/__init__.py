"""The control socket and the local HTTP endpoints, for operators and monitoring."""
