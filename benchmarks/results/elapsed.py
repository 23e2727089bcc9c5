"""How much time has passed here, against which a device's own times are held."""

from __future__ import annotations

import time
from collections.abc import Callable

from runtimes.errors import BadInput

SLACK = 1.02
SLACK_S = 2.0
"""A device's clock may run so much faster than ours, and have begun so much earlier."""


def wall_s() -> float:
    """Seconds that never go back, and go on while this machine sleeps, where it can tell: boards may work on."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class Elapsed:
    """The time since a job was given out, by a clock of ours; without one, every time is believed."""

    def __init__(self, clock: Callable[[], float] | None) -> None:
        self._clock = clock
        self._began_s = clock() if clock else 0.0
        self._spent_ns = 0

    def check(self, at_ns: float, spent_ns: int = 0) -> None:
        """Check a time on the device's clock, and add what was spent on one case, beside which no other runs.

        Raises BadInput for more than has passed.
        """
        spent_ns += self._spent_ns
        if self._clock is not None:
            most_ns = ((self._clock() - self._began_s) * SLACK + SLACK_S) * 1e9
            told_ns = max(at_ns, spent_ns)
            if told_ns > most_ns:
                raise BadInput(f"times of {told_ns / 1e9:,.3g} s, of which {most_ns / 1e9:,.3g} s have passed")
        self._spent_ns = spent_ns
