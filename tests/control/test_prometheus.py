from __future__ import annotations

from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from supervisor.control.prometheus import PREFIX, exposition
from supervisor.stats import MAX_ACTION_LABELS, OTHERS, Stats
from supervisor.status import Recent, SpoolStatus
from tests.status_world import BUSY, CLAIMS, IDLE, JOB, status


def samples(ledger: Stats, **changes: object) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """The values by name, without the prefix, and labels."""
    text = exposition(status(**changes), ledger).decode()
    return {
        (sample.name.removeprefix(PREFIX), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def ended(outcome: str, seconds: float = 1.0, action: str = "resize") -> Recent:
    return Recent(job_id="j", action=action, attempt=1, outcome=outcome, message=None, seconds=seconds, ended_at=0.0)


def test_what_is_now_comes_from_the_status() -> None:
    claims = replace(CLAIMS, blocked_by=("memory",), reason="short of memory")

    values = samples(Stats(), spool=SpoolStatus(items=2, bytes=512, oldest_age=7.0), claims=claims)

    assert values["children", (("state", "busy"),)] == 1
    assert values["children", (("state", "stopping"),)] == 0
    assert values["slots", ()] == 2
    assert values["occupancy_ratio", ()] == 0.5
    assert values["jobs_running", (("handler", "resize"),)] == 1
    assert values["child_memory_bytes", (("slot", "1"),)] == 2**20
    assert [values[name, ()] for name in ("spool_items", "spool_bytes", "spool_oldest_seconds")] == [2, 512, 7]
    assert values["spool_failing", ()] == 0
    assert values["loop_lag_seconds", ()] == 0.01
    blocked = {bar: values["claims_blocked", (("reason", bar),)] for bar in ("paused", "halted", "memory", "server")}
    assert blocked == {"paused": 0, "halted": 0, "memory": 1, "server": 0}
    assert values["build_info", (("version", "1.2.3"),)] == 1


def test_a_spool_that_cannot_be_used_is_told() -> None:
    values = samples(Stats(), spool=SpoolStatus(trouble="No space left on device"))

    assert values["spool_failing", ()] == 1


def test_a_job_that_is_reported_takes_its_slot_and_does_not_run() -> None:
    values = samples(Stats(), slots=(IDLE, replace(BUSY, state="reporting")))

    assert values["children", (("state", "reporting"),)] == 1
    assert values["occupancy_ratio", ()] == 0.5
    assert ("jobs_running", (("handler", "resize"),)) not in values


def test_what_has_happened_comes_from_the_ledger() -> None:
    ledger = Stats()
    ledger.claim_answered(10.0, asked_at=9.5, has_job=True)
    ledger.claim_failed("no answer")
    ledger.job_ended(ended("completed", 0.3))
    ledger.job_ended(ended("lease_lost"))
    ledger.record_heartbeat("accepted", seconds=0.02, slack=21.0)
    ledger.child_start_seconds.observe(0.003)
    ledger.job_start_seconds.observe(0.004)
    ledger.child_exits["oom"] += 1
    ledger.events_sent += 5

    values = samples(ledger)

    assert values["claims_total", (("result", "job"),)] == 1
    assert values["claims_total", (("result", "error"),)] == 1
    assert values["jobs_total", (("handler", "resize"), ("outcome", "completed"))] == 1
    assert values["lease_lost_total", ()] == 1
    assert values["job_seconds_count", (("handler", "resize"),)] == 2
    assert values["job_seconds_sum", (("handler", "resize"),)] == 1.3
    assert values["heartbeats_total", (("result", "accepted"),)] == 1
    assert values["child_starts_total", ()] == 1
    assert values["job_queue_to_start_seconds_count", ()] == 1
    assert values["job_queue_to_start_seconds_sum", ()] == 0.004
    assert values["child_exits_total", (("reason", "oom"),)] == 1
    assert values["child_exits_total", (("reason", "crash"),)] == 0
    assert values["events_sent_total", ()] == 5


def test_a_bucket_counts_what_is_in_the_smaller_ones_too() -> None:
    ledger = Stats()
    for length in (0.02, 0.3, 100_000.0):
        ledger.job_ended(ended("completed", length))

    values = samples(ledger)

    counts = {labels[1][1]: value for (name, labels), value in values.items() if name == "job_seconds_bucket"}
    assert counts["0.01"] == 0
    assert counts["0.1"] == 1
    assert counts["0.5"] == 2
    assert counts["14400.0"] == 2
    assert counts["+Inf"] == 3


def test_ever_new_actions_do_not_fill_the_memory() -> None:
    ledger = Stats()

    for number in range(MAX_ACTION_LABELS + 50):
        ledger.job_ended(ended("failed", action=f"action {number}"))

    assert len(ledger.job_seconds) == MAX_ACTION_LABELS + 1
    assert ledger.jobs[OTHERS, "failed"] == 50


def test_all_actions_that_no_handler_answers_to_have_one_label() -> None:
    ledger = Stats()
    for number in range(3):
        ledger.job_ended(ended("failed", action=f"foreign {number}"), is_known=False)

    values = samples(ledger, slots=(replace(BUSY, job=replace(JOB, action="foreign")),))

    assert values["jobs_total", (("handler", "(unknown)"), ("outcome", "failed"))] == 3
    assert values["jobs_running", (("handler", "(unknown)"),)] == 1
    assert [ended.action for ended in ledger.recent] == ["foreign 0", "foreign 1", "foreign 2"]


def test_all_names_have_the_prefix_or_are_the_process_own() -> None:
    families = list(text_string_to_metric_families(exposition(status(), Stats()).decode()))

    assert {family.name for family in families if not family.name.startswith((PREFIX, "process_"))} == set()
    assert all(family.documentation for family in families)
