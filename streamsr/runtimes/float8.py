"""E4M3, the 8-bit floating point of GPUs from Ada on (ONNX: FLOAT8E4M3FN), rounded and packed in NumPy.

One bit of sign, four of exponent (bias 7), three of mantissa; no infinity, and the largest value is 448 (Micikevicius
et al. 2022, "FP8 formats for deep learning"). Rounding is to nearest, ties to even; what is larger becomes the largest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 448.0

SIGN = 0x80


def _magnitudes() -> NDArray[np.float64]:
    """Return the values of codes 0 to 126, which grow with their codes; 127 is no number."""
    exponent, mantissa = np.divmod(np.arange(127), 8)
    return np.where(exponent == 0, mantissa * 2.0**-9, (1.0 + mantissa / 8.0) * 2.0 ** (exponent - 7))


MAGNITUDES = _magnitudes()
MIDDLES = (MAGNITUDES[1:] + MAGNITUDES[:-1]) / 2.0


def encoded(values: Any) -> NDArray[np.uint8]:
    """Return the codes of real values, one byte each.

    >>> encoded([0.0, 1.0, -1.0, 1000.0]).tolist()
    [0, 56, 184, 126]
    """
    real = np.asarray(values, np.float64)
    codes = np.searchsorted(MIDDLES, np.abs(real))
    tied = np.abs(real) == MIDDLES[np.minimum(codes, len(MIDDLES) - 1)]
    codes = codes + (tied & (codes % 2 == 1))
    signed: NDArray[np.uint8] = np.where(np.signbit(real), codes + SIGN, codes).astype(np.uint8)
    return signed


def rounded(values: Any) -> NDArray[np.float64]:
    """Return the nearest values that there are."""
    codes = encoded(values)
    return MAGNITUDES[codes % SIGN] * np.where(codes >= SIGN, -1.0, 1.0)
