"""`python -m supervisor`."""

from supervisor.cli import main

main(prog_name="mobius-supervisor")
