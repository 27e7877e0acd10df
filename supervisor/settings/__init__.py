"""The settings of the program: one declaration each, read from command line, environment and file."""
