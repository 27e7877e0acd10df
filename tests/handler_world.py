"""What tests of handlers share: a job, and a context whose messages are kept instead of sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from supervisor import Context
from supervisor.handler_api.context import ParentChannel
from supervisor.handler_api.interruption import Interruption
from supervisor.ipc.messages import EventEmitted, Logged
from supervisor.job import Job


def a_job(**changes: Any) -> Job:
    job = Job(
        job_id="job_1",
        run_id="run_1",
        workflow_name="flow",
        step_name="step",
        action="act",
        attempt=1,
        queue="default",
        parameters=b"{}",
        heartbeat_interval=30.0,
    )
    return msgspec.structs.replace(job, **changes)


@dataclass
class World:
    """A context and all that it has told."""

    folder: Path
    told: list[EventEmitted | Logged] = field(default_factory=list)
    interruption: Interruption = field(default_factory=Interruption)
    now: float = 0.0

    def context(self, *, parameters: dict[str, Any] | None = None, **job: Any) -> Context:
        return Context(
            a_job(**job),
            worker_id="worker_1",
            workdir=str(self.folder / "work" / "job_1"),
            parameters=parameters or {},
            channel=ParentChannel(a_job(**job).job_id, self.told.append, self.interruption),
            interruption=self.interruption,
            clock=lambda: self.now,
        )

    @property
    def events(self) -> list[tuple[str, Any]]:
        events = [message.event for message in self.told if isinstance(message, EventEmitted)]
        return [(event.type, msgspec.json.decode(event.payload)) for event in events]

    @property
    def progress(self) -> list[Any]:
        return [payload for type_, payload in self.events if type_ == "progress"]

    @property
    def logged(self) -> list[tuple[int, str]]:
        return [(message.level, message.text) for message in self.told if isinstance(message, Logged)]
