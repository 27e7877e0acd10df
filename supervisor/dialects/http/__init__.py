"""The HTTP protocol of job servers: long polls, heartbeats, events and reports."""
