"""`python -m supervisor`."""

from supervisor.cli.main import main

main(prog_name="mobius-supervisor")
