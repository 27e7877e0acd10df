"""What Prometheus scrapes: made of the ledger and of the status when it is asked for.  All of it from one process."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from supervisor.attempt.outcome import OutcomeLabel
from supervisor.pool.claim_gate import BlockReason
from supervisor.stats import UNKNOWN, Histogram, Stats
from supervisor.status import Status

PREFIX = "mobius_supervisor_"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(status: Status, ledger: Stats) -> bytes:
    """All metrics in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(status, ledger))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Families(Collector):
    """What `prometheus_client` asks for metrics."""

    def __init__(self, status: Status, ledger: Stats) -> None:
        self._status = status
        self._ledger = ledger

    def collect(self) -> Iterator[Metric]:
        yield from _now(self._status)
        yield from _children(self._ledger)
        yield from _jobs(self._ledger)
        yield from _calls(self._ledger)


def _now(status: Status) -> Iterator[Metric]:
    slots, spool = status.slots, status.spool
    states = Tally(dict.fromkeys(("starting", "idle", "busy", "stopping", "reporting"), 0))
    states.update(slot.state for slot in slots if slot.state != "none")
    taken = sum(slot.job is not None for slot in slots)
    running = Tally(_handler(status, slot.job.action) for slot in slots if slot.job and slot.state != "reporting")
    memory = {str(slot.slot): float(slot.memory) for slot in slots if slot.memory is not None}
    yield _gauges("children", "Children, by what they do.", "state", states)
    yield _gauge("slots", "Jobs that can run at once.", len(slots))
    yield _gauge("occupancy_ratio", "Part of the slots with a job.", taken / max(1, len(slots)))
    yield _gauges("jobs_running", "Jobs whose handler runs.", "handler", running)
    yield _gauges("child_memory_bytes", "Memory of a child and of what its job started.", "slot", memory)
    yield _gauge("spool_items", "Outcomes that the server does not have yet.", spool.items)
    yield _gauge("spool_bytes", "Bytes of these outcomes.", spool.bytes)
    yield _gauge("spool_oldest_seconds", "Age of the oldest of them.", spool.oldest_age or 0.0)
    is_failing = spool.trouble is not None
    yield _gauge("spool_failing", "Whether outcomes cannot be put on the disk, and wait in memory only.", is_failing)
    yield _gauge("open_polls", "Claims that wait for a job.", status.claims.open_polls)
    blocked = {bar.value: float(bar.value in status.claims.blocked_by) for bar in BlockReason}
    yield _gauges("claims_blocked", "Whether nothing is claimed for this reason.", "reason", blocked)
    quarantined = len(status.quarantined_actions)
    yield _gauge("quarantined_handlers", "Handlers left out of claims, because they kill their children.", quarantined)
    yield _gauge("loop_lag_seconds", "By how much the event loop was late at worst in ten seconds.", status.loop_lag)
    info = GaugeMetricFamily(PREFIX + "build_info", "The program that runs.", labels=("version",))
    info.add_metric((status.version,), 1)
    yield info


def _handler(status: Status, action: str) -> str:
    return action if action in status.code.actions else UNKNOWN


def _children(ledger: Stats) -> Iterator[Metric]:
    yield _counter("child_starts", "Children that came up.", sum(ledger.child_start_seconds.counts))
    yield _counters("child_exits", "Children that ended, by why.", "reason", ledger.child_exits)
    yield _histogram(
        "child_start_seconds", "From the order to fork until the child is ready.", ledger.child_start_seconds
    )
    yield _histogram(
        "cancel_latency_seconds", "From the order to stop a job until its child is idle or gone.", ledger.cancel_latency
    )
    yield _counters("kill_stage", "Stopped jobs, by what it took.", "stage", ledger.kill_stages)


def _jobs(ledger: Stats) -> Iterator[Metric]:
    ended = CounterMetricFamily(PREFIX + "jobs", "Jobs that ended here.", labels=("handler", "outcome"))
    for labels, count in ledger.jobs.items():
        ended.add_metric(labels, count)
    yield ended
    lost = sum(count for (_, outcome), count in ledger.jobs.items() if outcome == OutcomeLabel.LEASE_LOST)
    yield _counter("lease_lost", "Jobs whose lease was lost.", lost)
    lengths = HistogramMetricFamily(
        PREFIX + "job_seconds", "From the claim to the end of the handler.", labels=("handler",)
    )
    for handler, histogram in ledger.job_seconds.items():
        lengths.add_metric((handler,), _buckets(histogram), histogram.total)
    yield lengths
    yield _histogram(
        "job_queue_to_start_seconds",
        "From the answer to a claim until a child has the job; how long the server had queued it, it does not say.",
        ledger.job_start_seconds,
    )
    yield _counters("log_bytes", "Text that handlers printed or logged.", "stream", ledger.log_bytes)


def _calls(ledger: Stats) -> Iterator[Metric]:
    yield _counters("claims", "Claims, by how they ended.", "result", ledger.claims)
    yield _histogram("claim_seconds", "From a claim to its answer, the wait for a job included.", ledger.claim_seconds)
    yield _counters("heartbeats", "Heartbeats, by how they ended.", "result", ledger.heartbeats)
    yield _histogram("heartbeat_seconds", "From a heartbeat to its answer.", ledger.heartbeat_seconds)
    yield _histogram("lease_slack_seconds", "What was left of a lease when a heartbeat was sent.", ledger.lease_slack)
    yield _counters("reports", "Reports, by how they ended.", "result", ledger.reports)
    yield _counter("events_sent", "Events that the server took.", ledger.events_sent)
    yield _counter("events_dropped", "Events that the server refused.", ledger.events_dropped)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value=value)


def _gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, text, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, text, value=value)


def _counters(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(PREFIX + name, text, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    return HistogramMetricFamily(PREFIX + name, text, buckets=_buckets(histogram), sum_value=histogram.total)


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Prometheus counts in each bucket what is in the smaller ones too."""
    cumulated, count = [], 0
    for bound, here in zip([*map(str, histogram.bounds), "+Inf"], histogram.counts, strict=True):
        count += here
        cumulated.append((bound, float(count)))
    return cumulated
