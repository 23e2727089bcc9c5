"""The measuring loop, clock and runs given: warm up until stable, then blocks in turns; pure and seeded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Optional

LEAST_ROUNDS = 25
"""Fewer block medians than this make bootstrap intervals too narrow."""
MOST_RUNS_A_BLOCK = 1000
MOST_TIMES_LONGER = 10
"""A precision that is not reached after so many times the asked seconds is out of reach."""
WINDOW_NS = 50_000_000
STABLE_WINDOWS = 3
STABLE_RATIO = 1.05
SECOND_NS = 1_000_000_000
Z95 = 1.96

Run = Callable[[], object]
Clock = Callable[[], int]
"""Nanoseconds that never go back."""
Deal = Callable[[int, int], Optional[Sequence[int]]]
"""(case, runs) -> the times of a block of so many runs in ns, or None once the case is lost."""


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two (the standard library's takes long to import)."""
    ordered, n = sorted(values), len(values)
    return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2


def timed_block(run: Run, count: int, clock: Clock) -> list[int]:
    """How long each of `count` runs took, in ns."""
    times = []
    for _ in range(count):
        started = clock()
        run()
        times.append(clock() - started)
    return times


def warm_up(run: Run, clock: Clock, limit_s: float) -> tuple[list[int], bool]:
    """Run until the medians of three windows of 50 ms lie within 5%, or `limit_s` is over: every run's time, and which.

    A window holds one run at least, so that a model of seconds warms up by three.
    """
    times: list[int] = []
    medians: list[float] = []
    started = clock()
    while clock() - started < limit_s * SECOND_NS:
        window: list[int] = []
        while sum(window) < WINDOW_NS and len(window) < MOST_RUNS_A_BLOCK:
            window += timed_block(run, 1, clock)
        times += window
        medians.append(median(window))
        latest = medians[-STABLE_WINDOWS:]
        if len(latest) == STABLE_WINDOWS and max(latest) <= STABLE_RATIO * min(latest):
            return times, True
    return times, False


def runs_a_block(warmup_ns: Sequence[int], seconds: float) -> int:
    """So many that `LEAST_ROUNDS` blocks last `seconds`, at least one; judged by the later half of the warm-up."""
    run_ns = median(warmup_ns[len(warmup_ns) // 2 :])
    return min(MOST_RUNS_A_BLOCK, max(1, round(seconds * SECOND_NS / LEAST_ROUNDS / max(run_ns, 1))))


def take_turns(
    deal: Deal,
    block_runs: dict[int, int],
    *,
    seconds: float,
    seed: int,
    precision: float | None = None,
    on_round: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Let every case of `block_runs` compute a block a round, in an order shuffled anew, until time and count are met.

    It ends when `LEAST_ROUNDS` and, over all runs, `seconds` for each case that is left are reached; with `precision`,
    when the 95% interval of every median is also that narrow, or ten times the seconds are spent.
    """
    import random

    shuffle = random.Random(seed).shuffle
    medians: dict[int, list[float]] = {case: [] for case in block_runs}
    rounds, spent_ns = 0, 0
    while medians:
        order = sorted(medians)
        shuffle(order)
        for case in order:
            times = deal(case, block_runs[case])
            if times is None:
                del medians[case]
                continue
            medians[case].append(median(times))
            spent_ns += sum(times)
        rounds += 1
        wanted_ns = seconds * SECOND_NS * len(medians)
        by_time = -int(-rounds * wanted_ns // max(spent_ns, 1))
        on_round(rounds, max(LEAST_ROUNDS, by_time, rounds))
        if rounds < LEAST_ROUNDS or spent_ns < wanted_ns:
            continue
        precise = precision is None or all(half_width(found) <= precision for found in medians.values())
        if precise or spent_ns >= MOST_TIMES_LONGER * wanted_ns:
            return


def half_width(values: Sequence[float]) -> float:
    """Half of the 95% interval of the median over the median, by order statistics: ranks n/2 -+ 1.96 sqrt(n)/2.

    (Conover, Practical Nonparametric Statistics, 1999, 3.2.)
    """
    ordered, n = sorted(values), len(values)
    reach = Z95 * n**0.5 / 2
    low, high = ordered[max(0, int(n / 2 - reach))], ordered[min(n - 1, int(n / 2 + reach))]
    return (high - low) / 2 / max(median(ordered), 1e-9)


def sustain(run: Run, clock: Clock, seconds: float) -> Iterator[tuple[int, int, list[int]]]:
    """Run without a pause for `seconds`: for each second when it began, how many runs it had, the first 1,000 times."""
    begun = clock()
    while clock() - begun < seconds * SECOND_NS:
        started, runs = clock(), 0
        times: list[int] = []
        while clock() - started < SECOND_NS:
            if len(times) < MOST_RUNS_A_BLOCK:
                times += timed_block(run, 1, clock)
            else:
                run()
            runs += 1
        yield started, runs, times
