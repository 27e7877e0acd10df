"""The benchmark of trivial jobs in small: ratios to a bare loop of the same moment, so that no machine is too slow.

The processor that a job takes is what says something on a machine that does other things at the same time; its speed
there says no more than that nothing stands still.
"""

from __future__ import annotations

import pytest

from benchmarks.throughput import BARE, OURS, PEERS, Peer, Throughput

MOST_CPU = 3.0
"""Of the parent, as a multiple of the bare loop's."""
LEAST_SPEED = 0.1
ROUNDS = 3


@pytest.mark.timeout(120)
def test_a_trivial_job_costs_no_more_than_it_did() -> None:
    throughput = Throughput(peers={OURS: Peer(PEERS[OURS].start, 300), BARE: Peer(PEERS[BARE].start, 600)})

    for _ in range(ROUNDS):
        throughput.measure()

    # The best of them: whatever else the machine does makes it worse, never better.
    assert min(throughput.costs(OURS)) < MOST_CPU * min(throughput.costs(BARE))
    assert max(throughput.speeds(OURS)) > LEAST_SPEED * max(throughput.speeds(BARE))
