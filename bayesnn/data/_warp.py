"""Affine maps of images, in pixels about the middle: what rotation, letters and centring share."""

import torch
import torch.nn.functional as F
from torch import Tensor

MNIST_CENTRE = 0.5
"""MNIST's centre of mass lies on pixel 14 of 0 to 27: this much right and down
of the image's middle.
"""


def warp(images: Tensor, matrix: Tensor) -> Tensor:
    """`out(p) = images(A p + b)`, bilinear, 0 outside the image.

    Shapes: images `[n, channel, height, width]`, matrix `[n, 2, 3]` = (A | b), of float64 for
    exact right angles. Units: p, b in pixels (right, down) from the middle of the image.
    """
    height, width = images.shape[-2:]
    half = torch.tensor([width / 2, height / 2], dtype=matrix.dtype, device=matrix.device)
    linear = matrix[:, :, :2] * half / half[:, None]
    shift = matrix[:, :, 2:] / half[:, None]
    theta = torch.cat([linear, shift], -1).to(images)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def turn(radians: Tensor) -> Tensor:
    """`A(a)`, with which `warp` turns an image by a, counter-clockwise as it is seen:
    `[n]` -> `[n, 2, 2]`.
    """
    cos, sin = radians.cos(), radians.sin()
    return torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)


def centre_of_mass(images: Tensor) -> Tensor:
    """Where the ink's mean lies: `[n, channel, height, width]` -> `[n, 2]`, pixels (right, down)
    from the middle.
    """
    height, width = images.shape[-2:]
    ink = images.sum(1)
    right = torch.arange(width, device=images.device) - (width - 1) / 2
    down = torch.arange(height, device=images.device) - (height - 1) / 2
    mass = ink.sum((-2, -1)).clamp_min(torch.finfo(images.dtype).tiny)
    return torch.stack([ink.sum(-2) @ right.to(ink), ink.sum(-1) @ down.to(ink)], -1) / mass[:, None]
