"""Images moved away from where they came from: turned, and with noise."""

import math

import torch
from torch import Tensor

from bayesnn.data._warp import turn, warp


def rotated(images: Tensor, degrees: float | Tensor) -> Tensor:
    """`out(p) = images(R(-a) p)`: images turned counter-clockwise about their middle; bilinear, 0
    outside.

    Shapes: images `[n, channel, height, width]`, degrees a number or `[n]`; gives the shape of
    images. Units: degrees; intensities stay between 0 and the largest of images (or the smallest,
    where that is negative). Turned by 90 it equals `torch.rot90(images, 1, (-2, -1))` for square
    images, to rounding. Device and dtype follow images.

    Raises:
        ValueError: images that are not floats of four axes; degrees that are neither one number
            nor one an image, or not finite.

    Source: the rotated digits of Gal and Ghahramani (2016), Dropout as a Bayesian approximation,
    section 5.2.

        >>> import torch
        >>> from bayesnn.data import rotated
        >>> image = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
        >>> rotated(image, 90).round(decimals=5)[0, 0].tolist()
        [[0.0, 0.0], [1.0, 0.0]]
    """
    _check("rotated", images)
    angle = torch.as_tensor(degrees, dtype=torch.float64, device=images.device)
    if angle.shape not in (torch.Size([]), images.shape[:1]):
        raise ValueError(
            f"rotated: degrees has the shape {tuple(angle.shape)} for {len(images)} images; "
            f"give one number, or one for each image, [{len(images)}]"
        )
    if not angle.isfinite().all():
        raise ValueError("rotated: degrees is NaN or infinite; give finite angles")
    if images.numel() == 0:
        return images.clone()
    linear = turn(torch.deg2rad(angle.expand(len(images))))
    turned = warp(images, torch.cat([linear, linear.new_zeros(len(images), 2, 1)], -1))
    return turned.clamp(min(0.0, float(images.min())), max(0.0, float(images.max())))


def noisy(images: Tensor, scale: float, *, generator: torch.Generator | None = None) -> Tensor:
    """`out = min(max(images + scale * e, 0), 1)`, e ~ N(0, 1) for each pixel by itself.

    Shapes: images `[n, channel, height, width]`; gives the same shape.
    Units: scale is a standard deviation in intensities, 1 = from paper to ink; before clipping.
    Device and dtype follow images; `generator` (torch's global one by default) lives on their
    device.

    Raises:
        ValueError: images that are not floats of four axes, or a scale that is negative, NaN or
            infinite.

    Source: the Gaussian noise of Hendrycks and Dietterich (2019), Benchmarking neural network
    robustness to common corruptions; their five severities are 0.08, 0.12, 0.18, 0.26 and 0.38 in
    these units.

        >>> import torch
        >>> from bayesnn.data import noisy
        >>> noisy(torch.zeros(5, 1, 28, 28), 0.26).shape
        torch.Size([5, 1, 28, 28])
    """
    _check("noisy", images)
    if not (math.isfinite(scale) and scale >= 0):
        raise ValueError(f"noisy: scale is {scale}; give a standard deviation, 0 or more")
    noise = torch.randn(images.shape, generator=generator, dtype=images.dtype, device=images.device)
    return (images + scale * noise).clamp(0, 1)


def _check(function: str, images: Tensor) -> None:
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(
            f"{function}: images must be floats [n, channel, height, width]; got {images.dtype} of the shape "
            f"{tuple(images.shape)}; add a missing axis with images[:, None], scale bytes with images / 255"
        )
