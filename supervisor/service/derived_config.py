"""Configuration of slots and of the zygote, derived from the settings.  Pure.  Tested by the flows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from supervisor.attempt.config import JobConfig
from supervisor.limits import Limits
from supervisor.linux.confinement import Confinement
from supervisor.logs.redaction import Mask
from supervisor.process.environment import child_environment
from supervisor.process.zygote import ZygoteConfig
from supervisor.settings.settings import Settings


def job_config(settings: Settings, scratch: Path, mask: Mask) -> JobConfig:
    """Return the configuration of slots; jobs get folders in `scratch`, and `mask` hides secrets in their output."""
    return JobConfig(
        worker_id=settings.worker_id,
        wait=settings.wait_seconds,
        limits=_default_limits(settings),
        lease_ttl=settings.lease_ttl,
        max_heartbeat_interval=settings.max_heartbeat_interval,
        scratch=scratch,
        mask=mask,
        forwards_output=settings.forward_output,
    )


def zygote_config(
    settings: Settings,
    environment: Mapping[str, str],
    confinement: Confinement,
    working_directory: Path,
    *,
    open_files: int,
) -> ZygoteConfig:
    """Return the configuration of a zygote."""
    return ZygoteConfig(
        settings.handlers,
        child_environment(environment, settings.pass_env),
        settings.import_timeout,
        confinement,
        open_files=open_files,
        working_directory=working_directory,
    )


def _default_limits(settings: Settings) -> Limits:
    """Return the limits of handlers that do not set their own."""
    return Limits(
        timeout=settings.job_timeout,
        cancel_grace=settings.cancel_grace,
        memory=settings.job_memory,
        max_jobs_per_child=settings.max_jobs_per_child,
        max_memory_per_child=settings.max_memory_per_child,
        nice=settings.nice,
        threads=settings.threads,
    )
