"""The ladder: which rung (engine, student, bicubic) the next frame is to be made by. Pure: no thread, no clock.

A rung is used when what it has cost lately fits the budget: nearly every frame must be done before its deadline, and
the usual one within a period, so that nothing piles up. Going down is quick, since every late frame is seen; going up
is slow, and only after the better rung was tried beside the one in use, so that the picture does not flicker. What is
late only because another rung is built, warmed or tried beside it says nothing of a rung, and does not count.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

WARMING, TRYING, TOO_SLOW = "warming up", "trying another", "too slow"

COSTS_KEPT = 25
"""Newest costs a rung is judged by: a second at 25 frames a second."""

COSTLY_PERCENTILE = 90
"""Of these costs: one slow frame in ten may be shown through bicubic, more may not."""

MOST_LATE = 3
"""Late frames among the last `COSTS_KEPT` that end the use of a rung."""

DISTURBED_S = 2.0
"""In which so many frames that are late because of another rung make it pause: building a plan takes minutes, over
which a late one now and then is no reason."""

UPWARD_HEADROOM = 0.85
"""Part of the budget that a better rung must fit into before it is used: what separates going up from going down."""

TRIALS_WANTED = 3
"""Trials in a row that must fit before a better rung is used."""

FIRST_WAIT_S, FIRST_REPAIR_S, LONGEST_WAIT_S = 2.0, 0.5, 60.0
"""Before the trial of a rung that did not fit, and of one that failed: either doubles each time, up to the last."""

SETTLED_S = 10.0
"""A rung that was used for this long has proved itself: its waits begin anew."""


@dataclass(frozen=True)
class Budget:
    """What a rung may cost.

    Attributes:
        period_ms: between two frames; the median cost must not exceed it.
        deadline_ms: from the moment a frame is taken to the moment it is made; nearly every cost must not exceed it.
    """

    period_ms: float = float("inf")
    deadline_ms: float = float("inf")

    def holds(self, costs_ms: Sequence[float], part: float = 1.0) -> bool:
        """Return whether costs fit into a part of the budget; no costs do."""
        if not costs_ms:
            return True
        usual, costly = np.percentile(costs_ms, (50, COSTLY_PERCENTILE))
        return bool(usual <= part * self.period_ms and costly <= part * self.deadline_ms)


@dataclass
class _Record:
    """What is known of one rung.

    Attributes:
        costs_ms: its newest costs.
        late: whether each of its newest frames was late.
        trials: trials in a row that fitted.
        wait_s: what the next wait will be.
        repair_s: what the next wait after a failure will be.
        next_trial_s: before which it is not tried.
        unwell: why it cannot be used now; empty where it can.
    """

    costs_ms: deque[float] = field(default_factory=lambda: deque(maxlen=COSTS_KEPT))
    late: deque[bool] = field(default_factory=lambda: deque(maxlen=COSTS_KEPT))
    trials: int = 0
    wait_s: float = FIRST_WAIT_S
    repair_s: float = FIRST_REPAIR_S
    next_trial_s: float = 0.0
    unwell: str = ""


class Ladder:
    """Chooses among rungs 0 (the best) to n - 1; rung n, below all of them, is bicubic and always works.

    Every call states the time, in seconds on any clock that only goes forward. Owned by one thread.

    Args:
        num_rungs: above bicubic.

    Attributes:
        rung: in use.
        reason: why it is not the best one; empty where it is.
        budget: what a frame may cost; set by the owner whenever it changes.
    """

    def __init__(self, num_rungs: int) -> None:
        self.rung = num_rungs
        self.reason = WARMING if num_rungs else ""
        self.budget = Budget()
        self._lowest = num_rungs
        self._rungs = [_Record(unwell=WARMING) for _ in range(num_rungs)]
        self._since_s = 0.0
        self._held: int | None = None
        self._disturbed_s: deque[float] = deque(maxlen=MOST_LATE)

    def warmed(self, rung: int, now_s: float, costs_ms: Sequence[float]) -> None:
        """Say that a rung is built and has made pictures of the right size, and what those after the first cost."""
        self._rungs[rung] = record = _Record()
        record.costs_ms.extend(costs_ms)
        if self.budget.holds(costs_ms):
            if rung < self.rung:
                self._use(rung, now_s)
            return
        self._wait(record, now_s)
        if rung == 0 < self.rung or self.rung == self._lowest:
            self.reason = TOO_SLOW

    def made(self, rung: int, now_s: float, cost_ms: float, *, late: bool = False) -> None:
        """Say that a rung made a frame that was (or was to be) shown."""
        record = self._rungs[rung]
        record.costs_ms.append(cost_ms)
        record.late.append(late)
        if rung != self.rung:
            return
        slow = len(record.costs_ms) == COSTS_KEPT and not self.budget.holds(record.costs_ms)
        if slow or sum(record.late) >= MOST_LATE:
            record.trials = 0
            self._wait(record, now_s)
            self._step_down(rung, now_s, TOO_SLOW)
        elif now_s - self._since_s > SETTLED_S:
            record.wait_s, record.repair_s = FIRST_WAIT_S, FIRST_REPAIR_S

    def disturbed(self, rung: int, now_s: float, why: str) -> None:
        """Say that a rung was late while another one was warmed or tried, which takes its processor.

        Where that happens often, bicubic is used until `settled`, so that the picture does not flicker for as long as a
        plan is built.
        """
        if rung != self.rung:
            return
        self._disturbed_s.append(now_s)
        if len(self._disturbed_s) == MOST_LATE and now_s - self._disturbed_s[0] <= DISTURBED_S:
            self.step_to_bicubic(now_s, why)
            self._held = rung

    def settled(self, now_s: float) -> None:
        """Say that no other rung is warmed or tried any more: one that had to pause for it is used again."""
        held, self._held = self._held, None
        self._disturbed_s.clear()
        if held is not None and held < self.rung and not self._rungs[held].unwell:
            self._use(held, now_s)

    def failed(self, rung: int, now_s: float, why: str) -> None:
        """Say that a rung failed, hangs, or makes what is no picture; it is tried again after a while."""
        record = self._rungs[rung]
        record.unwell, record.trials = why, 0
        record.next_trial_s = now_s + record.repair_s
        record.repair_s = min(2 * record.repair_s, LONGEST_WAIT_S)
        if rung == self.rung:
            self._step_down(rung, now_s, why)

    def retire(self, rung: int) -> None:
        """Never try a rung again."""
        self._rungs[rung].next_trial_s = float("inf")

    def tried(self, rung: int, now_s: float, cost_ms: float) -> None:
        """Say what a rung cost that was tried beside the one in use; it is used once it fits well, several times."""
        record = self._rungs[rung]
        record.unwell = ""
        record.costs_ms.append(cost_ms)
        if not self.budget.holds([cost_ms], UPWARD_HEADROOM):
            record.trials = 0
            self._wait(record, now_s)
            return
        record.trials += 1
        if record.trials >= TRIALS_WANTED:
            record.costs_ms.clear()
            self._use(rung, now_s)

    def wants_trial(self, now_s: float) -> int | None:
        """Return the best rung above the one in use whose time for a trial has come; None where there is none."""
        for rung, record in enumerate(self._rungs[: self.rung]):
            if record.unwell != WARMING and now_s >= record.next_trial_s:
                return rung
        return None

    def changed(self, rung: int) -> None:
        """Say that a rung must be warmed anew, for pictures of another size."""
        self._rungs[rung] = _Record(unwell=WARMING)

    def step_to_bicubic(self, now_s: float, why: str) -> None:
        """Use bicubic until a rung is warmed or tried."""
        self._held = None
        self._disturbed_s.clear()
        self.rung, self.reason, self._since_s = self._lowest, why, now_s

    def _step_down(self, rung: int, now_s: float, why: str) -> None:
        """Use the best rung below that is well, and not known to be too slow."""
        below = range(rung + 1, self._lowest)
        usable = [
            place for place in below if not self._rungs[place].unwell and self.budget.holds(self._rungs[place].costs_ms)
        ]
        self.rung, self.reason, self._since_s = (usable or [self._lowest])[0], why, now_s
        if usable:
            self._rungs[self.rung].late.clear()

    def _use(self, rung: int, now_s: float) -> None:
        record = self._rungs[rung]
        record.trials = 0
        record.late.clear()
        self.rung, self._since_s = rung, now_s
        self.reason = "" if rung == 0 else self._rungs[0].unwell or TOO_SLOW

    def _wait(self, record: _Record, now_s: float) -> None:
        record.next_trial_s = now_s + record.wait_s
        record.wait_s = min(2 * record.wait_s, LONGEST_WAIT_S)
