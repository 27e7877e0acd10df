"""mobius-supervisor: the Mobius worker for CPU-heavy Python."""

from supervisor.version import __version__

__all__ = ["__version__"]
