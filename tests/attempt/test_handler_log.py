from __future__ import annotations

from supervisor.attempt.job_output import LINE_OVERHEAD_BYTES, LOG_BURST_BYTES, LOG_BYTES_PER_SECOND, LogRateLimit

LINE = "x" * (1024 - LINE_OVERHEAD_BYTES)


def test_a_burst_passes_and_what_is_more_is_dropped_and_counted() -> None:
    said = LogRateLimit(0.0)

    passed = sum(said.has_room(LINE, 0.0) for _ in range(1000))

    assert passed == LOG_BURST_BYTES // 1024
    assert (
        said.take_dropped()
        == f"[{1000 - passed} lines of the handler dropped: more than {LOG_BYTES_PER_SECOND} characters a second]"
    )
    assert said.take_dropped() is None


def test_a_steady_rate_passes_for_ever() -> None:
    said = LogRateLimit(0.0)

    assert all(said.has_room(LINE, tick / 64) for tick in range(64 * 60))
    assert said.take_dropped() is None
