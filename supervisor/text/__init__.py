"""Formatting and parsing of values for people.  Pure."""
