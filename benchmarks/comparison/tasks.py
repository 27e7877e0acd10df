"""The jobs of the comparison as tasks: what `celery -A benchmarks.comparison.tasks` runs.

Acknowledged late, which is Celery's way to have a task again whose worker died.  The visibility timeout of the broker
is as long as the leases of the comparison's job server; by default it is an hour.
"""

from __future__ import annotations

from celery import Celery

from benchmarks.comparison.handlers._jobs import JOBS

VISIBILITY_TIMEOUT = 20

app = Celery("comparison")
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": VISIBILITY_TIMEOUT},
    task_acks_late=True,
)
for name, function in JOBS.items():
    app.task(name=name)(function)
