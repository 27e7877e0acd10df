"""What a user of Celery can do so that its children share what was imported: included by the worker."""

from __future__ import annotations

import gc

from celery.signals import worker_before_create_process


def freeze(**_: object) -> None:
    gc.collect()
    gc.freeze()


worker_before_create_process.connect(freeze)
