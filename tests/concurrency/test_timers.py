"""Alarms: which ring, when, and how many timers of the loop they take."""

import asyncio
import os
import socket
import subprocess
import sys

from supervisor.concurrency.timers import TIMER_RESOLUTION, TimerQueue

LONG = 3600.0
GENEROUS = 20.0


async def rung(alarms: TimerQueue, seconds: float) -> float:
    """When an alarm rings, counted from now."""
    loop = asyncio.get_running_loop()
    begin, rings = loop.time(), asyncio.Event()
    alarms.after(seconds, rings.set)
    await asyncio.wait_for(rings.wait(), GENEROUS)
    return loop.time() - begin


async def test_an_alarm_rings_not_before_its_time():
    assert await rung(TimerQueue(), 0.05) >= 0.05 - TIMER_RESOLUTION


async def test_the_sooner_one_does_not_wait_for_the_later_one():
    alarms = TimerQueue()
    alarms.after(LONG, lambda: None)

    assert await rung(alarms, 0.01) < LONG


async def test_alarms_ring_in_any_order_of_setting():
    alarms, heard, last = TimerQueue(), [], asyncio.Event()
    alarms.after(0.2, last.set)
    for seconds in (0.06, 0.02, 0.04):
        alarms.after(seconds, lambda seconds=seconds: heard.append(seconds))

    await asyncio.wait_for(last.wait(), GENEROUS)

    assert heard == [0.02, 0.04, 0.06]


async def test_a_cancelled_alarm_does_not_ring_and_the_next_one_does():
    alarms, heard, last = TimerQueue(), [], asyncio.Event()
    alarms.cancel(alarms.after(0.01, lambda: heard.append("cancelled")))
    alarms.after(0.05, last.set)

    await asyncio.wait_for(last.wait(), GENEROUS)

    assert heard == []


async def test_one_that_rings_may_cancel_another_that_is_due():
    alarms, heard, last = TimerQueue(), [], asyncio.Event()
    alarms.after(0.01, lambda: alarms.cancel(other))
    other = alarms.after(0.01, lambda: heard.append("other"))
    alarms.after(0.05, last.set)

    await asyncio.wait_for(last.wait(), GENEROUS)

    assert heard == []


async def test_one_that_rings_may_set_the_next():
    alarms, last = TimerQueue(), asyncio.Event()
    alarms.after(0.0, lambda: alarms.after(0.0, last.set))

    await asyncio.wait_for(last.wait(), GENEROUS)


async def test_a_thousand_alarms_that_are_taken_back_cost_one_timer(monkeypatch):
    loop = asyncio.get_running_loop()
    timers, alarms = [], TimerQueue()
    monkeypatch.setattr(alarms, "loop", Counting(loop, timers))

    for _ in range(1000):
        alarms.cancel(alarms.after(LONG, lambda: None))

    assert len(timers) == 1
    timers[0].cancel()


class Counting:
    """The loop, and the timers that are set in it."""

    def __init__(self, loop, timers):
        self.loop, self.timers = loop, timers

    def time(self):
        return self.loop.time()

    def call_at(self, when, call):
        self.timers.append(self.loop.call_at(when, call))
        return self.timers[-1]


STOP = """
import os, signal, sys, time
pid, descriptor = map(int, sys.argv[1:])
sys.stdin.readline()
os.kill(pid, signal.SIGSTOP)
os.write(descriptor, b"answer")
time.sleep(1.0)
os.kill(pid, signal.SIGCONT)
"""


async def test_what_came_while_we_were_stopped_is_seen_before_the_alarm_that_waits_for_it_rings():
    loop, alarms, seen = asyncio.get_running_loop(), TimerQueue(), []
    rings = asyncio.Event()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    command = [sys.executable, "-c", STOP, str(os.getpid()), str(theirs.fileno())]
    with ours, theirs, subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[theirs.fileno()]) as stopping:
        loop.add_reader(ours, lambda: seen.append(ours.recv(10)))

        stopping.stdin.write(b"now\n")
        stopping.stdin.flush()
        alarms.after(0.3, lambda: (seen.append("alarm"), rings.set()))
        await asyncio.wait_for(rings.wait(), GENEROUS)

        loop.remove_reader(ours)
    assert seen == [b"answer", "alarm"]
