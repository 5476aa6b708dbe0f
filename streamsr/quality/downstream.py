"""What enlarging gives a classifier: right answers, Matthews' coefficient, recovery, McNemar's test, flips.

The question of the 2017 experiment: a classifier that was trained on full resolution and stays as it is reads the
truth, a picture that was brought down and enlarged by interpolation, and one that a generator enlarged. *Recovery* is
what part of the loss the generator gives back: (generator - interpolation) / (truth - interpolation); 0 nothing, 1 all
of it, below 0 harm. Where the truth is read no better than interpolation there is no loss to give back, and no
recovery; where it is hardly read better, the interval says so by its width.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

from streamsr.quality.intervals import Resampler, percentiles

Answers = NDArray[np.bool_]


@dataclass(frozen=True)
class Recovery:
    """How much of what interpolation lost comes back.

    Attributes:
        recovery: of accuracy; NaN where nothing was lost.
        low: end of its 95 % interval, of the draws in which something was lost; NaN where there are none.
        high: the other end.
        gap: accuracy on truth less accuracy on interpolation.
        gap_low: end of its 95 % interval; where it reaches 0 recovery is of little meaning.
        gap_high: the other end.
    """

    recovery: float
    low: float
    high: float
    gap: float
    gap_low: float
    gap_high: float


@dataclass(frozen=True)
class McNemar:
    """Where two methods answer differently.

    Attributes:
        better: answers that only the first got right.
        worse: answers that only the second got right.
        p: exact two-sided probability of a split at least as uneven, if neither were better.
    """

    better: int
    worse: int
    p: float


def accuracy(answers: Answers, labels: Answers) -> float:
    """Return the share of right answers."""
    return float(np.mean(answers == labels))


def matthews(answers: Answers, labels: Answers) -> float:
    """Return Matthews' correlation coefficient (1975); 0 where answers or labels are all alike."""
    table = [float(np.sum((answers == a) & (labels == b))) for a, b in ((1, 1), (0, 0), (1, 0), (0, 1))]
    hit, rejected, alarm, miss = table
    norm = ((hit + alarm) * (hit + miss) * (rejected + alarm) * (rejected + miss)) ** 0.5
    return float((hit * rejected - alarm * miss) / norm) if norm else 0.0


def mcnemar(ours: Answers, theirs: Answers, labels: Answers) -> McNemar:
    """Compare two methods on the same pictures (McNemar 1947, exact binomial form)."""
    right, other = ours == labels, theirs == labels
    better, worse = int(np.sum(right & ~other)), int(np.sum(~right & other))
    return McNemar(better, worse, sign_test(better, worse))


def sign_test(better: int, worse: int) -> float:
    """Return the two-sided probability of so uneven a split of fair coin tosses.

    >>> sign_test(8, 2)
    0.109375
    """
    total, smaller = better + worse, min(better, worse)
    return min(1.0, 2 * sum(comb(total, k) for k in range(smaller + 1)) / (1 << total))


def flips(answers: Answers, on_truth: Answers) -> float:
    """Return the share of pictures that are answered otherwise than the truth is, right or wrong."""
    return float(np.mean(answers != on_truth))


def majority(answers: Answers) -> Answers:
    """Return what most of an odd number of classifiers say: (pictures,) of (seeds, pictures)."""
    return np.asarray(answers.mean(axis=0) > 0.5)


def recovery(engine: Answers, reference: Answers, truth: Answers, labels: Answers, draws: Resampler) -> Recovery:
    """Return the recovery of accuracy, means over the seeds, and its interval over groups.

    Args:
        engine: (seeds, pictures) answers to what the engine made.
        reference: the same of interpolation.
        truth: the same of the truth.
        labels: (pictures,) right answers.
        draws: of these pictures.

    Raises:
        ValueError: the shapes differ.
    """
    if not engine.shape == reference.shape == truth.shape or engine.shape[1:] != labels.shape:
        raise ValueError(f"expected answers of one shape, got {engine.shape}, {reference.shape} and {truth.shape}")
    right = np.stack([(each == labels).mean(axis=0) for each in (engine, reference, truth)], axis=1)
    ours, base, best = right.mean(axis=0)
    drawn = draws.means(right)
    gained, lost = drawn[:, 0] - drawn[:, 1], drawn[:, 2] - drawn[:, 1]
    some = lost > 1e-9
    low, high = percentiles(gained[some] / lost[some]) if some.any() else (float("nan"), float("nan"))
    gap = float(best - base)
    part = float((ours - base) / gap) if gap > 1e-9 else float("nan")
    return Recovery(part, low, high, gap, *percentiles(lost))
