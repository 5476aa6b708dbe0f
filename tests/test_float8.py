"""E4M3 in NumPy: what torch rounds to, over the whole range."""

from __future__ import annotations

import numpy as np
import torch

from streamsr.runtimes.float8 import LARGEST, MAGNITUDES, MIDDLES, encoded, rounded


def every_kind() -> np.ndarray:
    """Return values of every size, those there are, those half-way between two, and their neighbours."""
    random = np.random.default_rng(0).normal(0, 1, 4000) * 2.0 ** np.linspace(-12, 9, 4000)
    edges = np.concatenate([MAGNITUDES, MIDDLES, np.nextafter(MIDDLES, 0), np.nextafter(MIDDLES, 1e9)])
    return np.concatenate([random, edges, -edges, [0.0, -0.0]]).astype(np.float32)


def test_it_rounds_as_torch_does() -> None:
    values = every_kind()
    inside = torch.from_numpy(values).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn)
    np.testing.assert_array_equal(encoded(values), inside.view(torch.uint8).numpy())
    np.testing.assert_array_equal(rounded(values), inside.double().numpy())


def test_what_is_there_stays_and_what_is_too_large_is_the_largest() -> None:
    np.testing.assert_array_equal(rounded(-MAGNITUDES), -MAGNITUDES)
    assert rounded([465.0, 1e9, -1e9]).tolist() == [LARGEST, LARGEST, -LARGEST]


def test_ties_go_to_the_even_code() -> None:
    codes = encoded(MIDDLES)
    assert not (codes % 2).any()
    assert (np.abs(codes.astype(int) - np.arange(126) - 0.5) == 0.5).all()
