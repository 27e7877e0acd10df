"""When what is read may have come, after the program has slept."""

from __future__ import annotations

from supervisor.concurrency.loop_monitor import MIN_STALL, STALL_SETTLE_TIME, LoopMonitor


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def awake(clock: Clock) -> LoopMonitor:
    pulse = LoopMonitor(clock)
    pulse.tick()
    return pulse


def test_what_is_read_by_one_who_is_awake_has_just_come() -> None:
    clock = Clock()

    assert awake(clock).earliest_arrival(clock.now + 0.5) == clock.now + 0.5


def test_what_is_read_before_the_first_beat_after_a_sleep_may_be_as_old_as_the_last_one() -> None:
    clock = Clock()

    assert awake(clock).earliest_arrival(clock.now + MIN_STALL + 1) == clock.now


def test_so_may_what_is_read_right_after_it_but_nothing_later() -> None:
    clock = Clock()
    pulse = awake(clock)
    clock.now += 60
    pulse.tick()

    assert pulse.earliest_arrival(clock.now + STALL_SETTLE_TIME / 2) == clock.now - 60
    assert pulse.earliest_arrival(clock.now + STALL_SETTLE_TIME) == clock.now + STALL_SETTLE_TIME


def test_a_sleep_is_told_to_who_was_there_before_it_ended() -> None:
    clock = Clock()
    pulse = awake(clock)
    before = clock.now
    clock.now += 60

    assert pulse.stall_before(clock.now, since=before) == 60
    pulse.tick()
    assert pulse.stall_before(clock.now, since=before) == 60
    assert pulse.stall_before(clock.now, since=clock.now) == 0


def test_who_is_awake_all_the_time_has_not_slept() -> None:
    clock = Clock()

    assert awake(clock).stall_before(clock.now + MIN_STALL, since=clock.now) == 0


def test_a_beat_that_is_a_little_late_is_no_sleep() -> None:
    clock = Clock()
    pulse = awake(clock)
    clock.now += MIN_STALL
    pulse.tick()

    assert pulse.earliest_arrival(clock.now) == clock.now
