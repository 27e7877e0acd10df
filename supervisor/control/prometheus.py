"""The metrics for Prometheus, built from the statistics and the status at each scrape.  All come from the parent."""

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


def exposition(status: Status, stats: Stats) -> bytes:
    """Return all metrics in the Prometheus text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_MetricFamilies(status, stats))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _MetricFamilies(Collector):
    """The collector that `prometheus_client` calls."""

    def __init__(self, status: Status, stats: Stats) -> None:
        self._status = status
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        yield from _now(self._status)
        yield from _children(self._stats)
        yield from _jobs(self._stats)
        yield from _calls(self._stats)


def _now(status: Status) -> Iterator[Metric]:
    slots, spool = status.slots, status.spool
    states = Tally(dict.fromkeys(("starting", "idle", "busy", "stopping", "reporting"), 0))
    states.update(slot.state for slot in slots if slot.state != "none")
    taken = sum(slot.job is not None for slot in slots)
    running = Tally(_handler(status, slot.job.action) for slot in slots if slot.job and slot.state != "reporting")
    memory = {str(slot.slot): float(slot.memory) for slot in slots if slot.memory is not None}
    yield _gauges("children", "Children by state.", "state", states)
    yield _gauge("slots", "Jobs that can run at once.", len(slots))
    yield _gauge("occupancy_ratio", "Fraction of slots that have a job.", taken / max(1, len(slots)))
    yield _gauges("jobs_running", "Jobs whose handler is running.", "handler", running)
    yield _gauges("child_memory_bytes", "Memory of a child and of the processes that its job started.", "slot", memory)
    yield _gauge("spool_items", "Outcomes in the spool that the server has not accepted.", spool.items)
    yield _gauge("spool_bytes", "Size of the outcomes in the spool.", spool.bytes)
    yield _gauge("spool_oldest_seconds", "Age of the oldest outcome in the spool.", spool.oldest_age or 0.0)
    is_failing = spool.trouble is not None
    yield _gauge("spool_failing", "1 if outcomes cannot be written to disk and wait in memory only.", is_failing)
    yield _gauge("open_polls", "Open claims that wait for a job.", status.claims.open_polls)
    blocked = {reason.value: float(reason.value in status.claims.blocked_by) for reason in BlockReason}
    yield _gauges("claims_blocked", "1 if claims are blocked for this reason.", "reason", blocked)
    quarantined = len(status.quarantined_actions)
    yield _gauge("quarantined_handlers", "Handlers excluded from claims after crashes.", quarantined)
    yield _gauge("loop_lag_seconds", "Highest event-loop lag of the last ten seconds.", status.loop_lag)
    info = GaugeMetricFamily(PREFIX + "build_info", "Version of the running program.", labels=("version",))
    info.add_metric((status.version,), 1)
    yield info


def _handler(status: Status, action: str) -> str:
    return action if action in status.code.actions else UNKNOWN


def _children(stats: Stats) -> Iterator[Metric]:
    yield _counter("child_starts", "Children that became ready.", sum(stats.child_start_seconds.counts))
    yield _counters("child_exits", "Children that exited, by reason.", "reason", stats.child_exits)
    yield _histogram(
        "child_start_seconds", "Time from the fork command until the child is ready.", stats.child_start_seconds
    )
    yield _histogram(
        "cancel_latency_seconds",
        "Time from the request to stop a job until its child is idle or gone.",
        stats.cancel_latency,
    )
    yield _counters("kill_stage", "Stopped jobs, by the stage that stopped them.", "stage", stats.kill_stages)


def _jobs(stats: Stats) -> Iterator[Metric]:
    ended = CounterMetricFamily(PREFIX + "jobs", "Jobs that ended on this worker.", labels=("handler", "outcome"))
    for labels, count in stats.jobs.items():
        ended.add_metric(labels, count)
    yield ended
    lost = sum(count for (_, outcome), count in stats.jobs.items() if outcome == OutcomeLabel.LEASE_LOST)
    yield _counter("lease_lost", "Jobs whose lease was lost.", lost)
    lengths = HistogramMetricFamily(
        PREFIX + "job_seconds", "Time from the claim to the end of the handler.", labels=("handler",)
    )
    for handler, histogram in stats.job_seconds.items():
        lengths.add_metric((handler,), _buckets(histogram), histogram.total)
    yield lengths
    yield _histogram(
        "job_queue_to_start_seconds",
        "Time from the response to a claim until a child has the job, without the time in the server's queue.",
        stats.job_start_seconds,
    )
    yield _counters("log_bytes", "Bytes that handlers printed or logged.", "stream", stats.log_bytes)


def _calls(stats: Stats) -> Iterator[Metric]:
    yield _counters("claims", "Claims, by result.", "result", stats.claims)
    yield _histogram(
        "claim_seconds", "Time from a claim to its response, wait for a job included.", stats.claim_seconds
    )
    yield _counters("heartbeats", "Heartbeats, by result.", "result", stats.heartbeats)
    yield _histogram("heartbeat_seconds", "Time from a heartbeat to its response.", stats.heartbeat_seconds)
    yield _histogram("lease_slack_seconds", "Remaining lease time when a heartbeat was sent.", stats.lease_slack)
    yield _counters("reports", "Reports, by result.", "result", stats.reports)
    yield _counter("events_sent", "Events that the server accepted.", stats.events_sent)
    yield _counter("events_dropped", "Events that the server rejected.", stats.events_dropped)


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
    """Return cumulative buckets, as Prometheus expects: each contains the counts of the smaller ones."""
    cumulated, count = [], 0
    for bound, here in zip([*map(str, histogram.bounds), "+Inf"], histogram.counts, strict=True):
        count += here
        cumulated.append((bound, float(count)))
    return cumulated
