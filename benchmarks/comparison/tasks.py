"""The jobs of the comparison as tasks: what `celery -A benchmarks.comparison.tasks` runs.

Acknowledged late, which is Celery's way to have a task again whose worker died.
"""

from __future__ import annotations

from celery import Celery

from benchmarks.comparison.handlers._jobs import JOBS

app = Celery("comparison")
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_acks_late=True,
)
for name, function in JOBS.items():
    app.task(name=name)(function)
