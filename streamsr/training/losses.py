"""Losses of pictures, spectra, features and adversaries: pure functions on the device, without waiting for it.

All return a float32 scalar, compute in float32 whatever comes in, and have finite gradients; all can be captured in a
CUDA graph. A ``mask`` is (N or 1, 1, H, W) with weights in [0, 1]: 1 where the loss counts, 0 where it does not; a mask
that is empty everywhere gives 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

LUMA_WEIGHTS = (65.481 / 255, 128.553 / 255, 24.966 / 255)
"""ITU-R BT.601 studio-range luma of RGB in [0, 1], less its black of 16/255."""

MASK_EPSILON = 1e-6

SMALLEST_ERROR = 1e-6
"""Squared error below which a crop cannot be bettered: a rounding error of half a grey level is 3e-7."""

FeatureFunction = Callable[[Tensor], Sequence[Tensor]]
"""What a feature network is to a loss: RGB in, features out, shallow to deep."""


def charbonnier(output: Tensor, truth: Tensor, eps: float = 1e-3, *, mask: Tensor | None = None) -> Tensor:
    """Return the mean of sqrt(e^2 + eps^2), a rounded L1 (Lai et al. 2017); pictures of one shape in [0, 1]."""
    return _mean(((output.float() - truth.float()).square() + eps * eps).sqrt(), mask)


def mean_squared(output: Tensor, truth: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Return the mean of e^2; pictures of one shape in [0, 1]."""
    return _mean((output.float() - truth.float()).square(), mask)


def log_squared(output: Tensor, truth: Tensor) -> Tensor:
    """Return the mean logarithm of each crop's squared error, (N, C, H, W) pictures in [0, 1]: its PSNR but for a sign.

    Smooth pictures, whose errors are small and in which rounding shows first, count as much as detailed ones.
    """
    errors = (output.float() - truth.float()).square().mean(dim=(1, 2, 3))
    return (errors + SMALLEST_ERROR).log().mean()


def fft_l1(output: Tensor, truth: Tensor) -> Tensor:
    """Return the mean L1 of the real and imaginary parts of the difference of the spectra (N, C, H, W -> scalar).

    The transform is orthonormal, so the value is near the pixel error's whatever the size of the crop. Recipes that
    state a weight for an unscaled transform (0.05 in SAFMN) mean sqrt(H W) times as much as the same weight here.
    """
    difference = output.float() - truth.float()
    with _full_precision(difference):
        return torch.view_as_real(torch.fft.rfft2(difference, norm="ortho")).abs().mean()


def feature_loss(
    network: FeatureFunction,
    output: Tensor,
    truth: Tensor,
    mask: Tensor | None = None,
    *,
    form: Literal["l1", "mse"] = "l1",
    weights: Sequence[float] | None = None,
) -> Tensor:
    """Return the mean difference of features, summed over the depths.

    Args:
        network: a feature network; it sees both pictures, and its gradient flows to ``output`` alone.
        output: (N, 3, H, W) RGB in [0, 1].
        truth: the same shape.
        mask: where to count; brought to each depth by area averaging.
        form: absolute or squared differences. The paper's loss is ``mse`` at phi_5,4.
        weights: of the depths; all 1 when None.

    Raises:
        ValueError: there are not as many weights as depths.
    """
    with torch.no_grad():
        aims = network(truth)
    found = network(output)
    if weights is not None and len(weights) != len(found):
        raise ValueError(f"expected {len(found)} weights, one for each depth, got {len(weights)}")
    total = output.new_zeros((), dtype=torch.float32)
    for weight, ours, theirs in zip(weights or [1.0] * len(found), found, aims, strict=True):
        difference = ours.float() - theirs.float()
        difference = difference.abs() if form == "l1" else difference.square()
        total = total + weight * _mean(difference, None if mask is None else _resized(mask, difference))
    return total


def generator_adversarial_loss(logits_fake: Tensor) -> Tensor:
    """Return -log D(G(z)) (Ledig et al. 2017, equation 6, as a mean): softplus of the negated (N, 1) logits."""
    return functional.softplus(-logits_fake.float()).mean()


def discriminator_loss(logits_real: Tensor, logits_fake: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Return the binary cross-entropy -log D(real) - log(1 - D(fake)).

    Args:
        logits_real: (N, 1) logits of true pictures.
        logits_fake: (N, 1) logits of generated pictures.
        smoothing: true pictures aim at ``1 - smoothing`` instead of 1 (one-sided, Salimans et al. 2016).
    """
    real, fake = logits_real.float(), logits_fake.float()
    on_real = (1.0 - smoothing) * functional.softplus(-real) + smoothing * functional.softplus(real)
    return on_real.mean() + functional.softplus(fake).mean()


def blend_saturated(output: Tensor, truth: Tensor, saturated: Tensor) -> Tensor:
    """Put the truth's saturated pixels into the output, so that no critic sees, or teaches, how to draw them.

    Args:
        output: (N, 3, H, W) RGB.
        truth: the same shape.
        saturated: (N or 1, 1, H, W) bool or weights; above 0.5 the truth is taken, and no gradient flows to the output.

    Returns:
        (N, 3, H, W) in the dtype of ``output``.
    """
    return torch.where(saturated > 0.5, truth.detach().to(output.dtype), output)


def artefact_map(output: Tensor, average_output: Tensor, truth: Tensor, *, window_px: int = 7) -> Tensor:
    """Weigh pixels by how likely they are artefacts rather than details (Liang et al. 2022, LDL, section 3).

    With R the L1 residual of the output, the weight is the fifth root of the variance of R over the picture times its
    variance in a window, where R is not below the residual of the averaged generator; elsewhere 0.

    Args:
        output: (N, C, H, W) of the generator in training.
        average_output: the same, of the generator with averaged weights.
        truth: the same shape.
        window_px: odd side of the window, 7 in the paper.

    Returns:
        (N, 1, H, W) float32, at least 0, without gradient.
    """
    with torch.no_grad():
        residual = (truth.float() - output.float()).abs().sum(dim=1, keepdim=True)
        steady = (truth.float() - average_output.float()).abs().sum(dim=1, keepdim=True)
        whole = residual.var(dim=(1, 2, 3), keepdim=True).pow(0.2)
        margin, num = window_px // 2, window_px**2
        padded = functional.pad(residual, (margin, margin, margin, margin), mode="reflect")
        mean = functional.avg_pool2d(padded, window_px, stride=1)
        spread = functional.avg_pool2d(padded.square(), window_px, stride=1) - mean.square()
        local = spread.clamp(min=0.0) * (num / (num - 1))
        return torch.where(residual < steady, torch.zeros_like(residual), whole * local)


def artefact_loss(output: Tensor, average_output: Tensor, truth: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Return the L1 weighted by `artefact_map`, as LDL's loss does; (N, C, H, W) pictures in [0, 1]."""
    weights = artefact_map(output, average_output, truth)
    return _mean(weights * (output.float() - truth.float()).abs(), mask)


def reduce_bicubic(rgb: Tensor, scale: int) -> Tensor:
    """Bring pictures down by the antialiased bicubic filter (a = -0.5) that makes LR pictures, without rounding.

    It is two products with banded matrices: equal to the interpolation of the library, and its gradient is the same
    on every run, which the library's on a GPU is not.

    Args:
        rgb: (N, C, H, W) float; H and W are multiples of ``scale``.
        scale: 2, 4, ...

    Returns:
        (N, C, H / scale, W / scale) float32.

    Raises:
        ValueError: a side is no multiple of the scale.
    """
    height, width = rgb.shape[-2:]
    if height % scale or width % scale:
        raise ValueError(f"expected sides that are multiples of {scale}, got {width}x{height}; crop first")
    with _full_precision(rgb):
        rows, columns = (_reduction(side, scale, rgb.device) for side in (height, width))
        return rows @ rgb.float() @ columns.T


def consistency_loss(output: Tensor, lr: Tensor, scale: int, *, mask: Tensor | None = None) -> Tensor:
    """Return the mean L1 between the output brought down by ``scale`` and the camera's picture.

    Args:
        output: (N, C, scale * H, scale * W) in [0, 1].
        lr: (N, C, H, W) in [0, 1].
        scale: 2, 4, ...
        mask: where to count, (N or 1, 1, H, W).
    """
    return _mean((reduce_bicubic(output, scale) - lr.float()).abs(), mask)


def luma_of_rgb(rgb: Tensor) -> Tensor:
    """Return studio-range BT.601 luma, (N, 1, H, W) in [16/255, 235/255], of (N, 3, H, W) RGB in [0, 1]."""
    red, green, blue = (weight * rgb[:, place : place + 1] for place, weight in enumerate(LUMA_WEIGHTS))
    return red + green + blue + 16.0 / 255.0


def _reduction(size: int, scale: int, device: torch.device) -> Tensor:
    """Return the (size / scale, size) float32 matrix of Keys' cubic stretched by ``scale``, rows summing to one.

    Taps beyond the border are left out and the rest raised to one, as PIL and the library do. It is made on the device
    at each call, a few thousand numbers, so that a graph can hold it.
    """
    centres = (torch.arange(size // scale, device=device, dtype=torch.float32) + 0.5) * scale
    places = torch.arange(size, device=device, dtype=torch.float32) + 0.5
    far = (places[None, :] - centres[:, None]).abs() / scale
    near = (1.5 * far - 2.5) * far * far + 1.0
    taps = torch.where(far < 1.0, near, ((-0.5 * far + 2.5) * far - 4.0) * far + 2.0)
    taps = torch.where(far < 2.0, taps, torch.zeros_like(taps))
    return taps / taps.sum(dim=1, keepdim=True)


def _full_precision(tensor: Tensor) -> torch.autocast:
    return torch.autocast(tensor.device.type, enabled=False)


def _resized(mask: Tensor, like: Tensor) -> Tensor:
    return functional.adaptive_avg_pool2d(mask.float(), (like.shape[-2], like.shape[-1]))


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean of (N, C, H, W) values, weighted by a (N or 1, 1, H, W) mask where there is one."""
    if mask is None:
        return values.mean()
    weights = mask.float().expand(len(values), 1, *values.shape[2:])
    return (values * weights).sum() / (weights.sum() * values.shape[1]).clamp(min=MASK_EPSILON)
