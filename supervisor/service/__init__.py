"""The running program: start, shutdown, reload, signals and the integration with systemd."""
