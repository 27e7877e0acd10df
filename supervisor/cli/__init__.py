"""The command line: options, `serve`, and the commands that ask or order a running supervisor."""
