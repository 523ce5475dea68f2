"""Scenes of shapes made on the spot: a label for every pixel, and in some of them a shape that
training never saw.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

CLASSES = ("background", "ellipse", "box", "triangle")
"""What training shows; the shape decides."""

UNSEEN = len(CLASSES)
"""The label of the shape that only `scenes(..., unseen=True)` has: a cross."""

OBJECTS = 3
TYPICAL = 0.8
"""How often an object has the surface that is typical of its class; the others have 0.1 each,
crosses a third each.
"""


@dataclass(frozen=True)
class Scenes:
    """Images [image, 3, size, size] in [0, 1] and labels [image, size, size]."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.x)


def scenes(images: int, *, seed: int, unseen: bool = False, noise: float = 0.05, size: int = 48) -> Scenes:
    """Three shapes, one above the other, on mottled, greyish ground under light that falls from
    one side.

    Position, size, elongation, turn and colour are random and the same for all classes. Surfaces
    are plain, striped or spotted; each class has a typical one, which `TYPICAL` of its objects
    have. So neither colour nor surface tells the class, and parts may be hidden.

    Args:
        images: how many.
        seed: equal seeds give equal scenes; with `unseen` or more `noise` the seen shapes and
            lights are the same.
        unseen: whether one object of each scene, at a random depth, is a cross instead.
        noise: standard deviation of the noise of each pixel and colour.
        size: pixels of a side.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(images, *shape, generator=generator)

    shades = uniform(0.1, 0.9, 2, 1) + uniform(-0.08, 0.08, 2, 3)
    image = _ground(uniform(0.0, 1.0, 1, size // 8, size // 8), shades, size)
    label = torch.zeros(images, size, size, dtype=torch.long)
    crossed = torch.randint(OBJECTS, (images,), generator=generator)
    for depth in range(OBJECTS):
        kind = torch.randint(1, len(CLASSES), (images,), generator=generator)
        kind = torch.where(crossed == depth, UNSEEN, kind) if unseen else kind
        u, v = _own_axes(uniform(0.1, 0.9, 2), uniform(0.17, 0.3, 1), uniform(1.0, 1.6, 1), uniform(0.0, 2.0, 1), size)
        inside = _inside(kind, u, v)
        surface = _surface(kind, uniform(0.0, 1.0, 2))
        pattern = _pattern(surface, u, v, uniform(0.0, 2 * math.pi, 1))
        first = uniform(0.0, 1.0, 3, 1, 1)
        second = (first + 0.5) % 1  # so that a pattern can be seen
        painted = pattern[:, None] * first + (1 - pattern[:, None]) * second
        image = torch.where(inside[:, None], painted, image)
        label = torch.where(inside, kind[:, None, None], label)
    lit = image * _light(uniform(0.0, 2 * math.pi, 1), uniform(0.0, 0.5, 1), size)[:, None]
    grains = torch.randn(lit.shape, generator=generator)
    return Scenes((lit + noise * grains).clamp(0, 1), label)


def _grid(size: int) -> tuple[Tensor, Tensor]:
    """Rows and columns of the pixels' middles, between 0 and 1."""
    middle = (torch.arange(size) + 0.5) / size
    across, down = torch.meshgrid(middle, middle, indexing="xy")
    return down, across


def _ground(blobs: Tensor, colours: Tensor, size: int) -> Tensor:
    """Two colours mixed by a smooth field with sharper bands."""
    smooth = F.interpolate(blobs, size=(size, size), mode="bicubic")
    mix = 0.5 + 0.5 * torch.sin(4 * math.pi * smooth)
    first, second = colours[..., None, None].unbind(1)
    return mix * first + (1 - mix) * second


def _own_axes(centre: Tensor, radius: Tensor, stretch: Tensor, turn: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Coordinates of every pixel in an object's own axes, in its radii."""
    down, across = _grid(size)
    dy, dx = down - centre[:, :1, None], across - centre[:, 1:, None]
    cos, sin = (f(math.pi * turn)[..., None] for f in (torch.cos, torch.sin))
    radius = radius[..., None]
    return (cos * dx + sin * dy) / radius, (cos * dy - sin * dx) / radius * stretch[..., None]


def _inside(kind: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """[image, size, size]: which pixels the object covers, shapes of about one area."""
    ellipse = u**2 + v**2 < 1
    box = torch.maximum(u.abs(), v.abs()) < 0.89
    triangle = (v > -0.78) & (v + 1.73 * u.abs() < 1.56)
    arms = torch.minimum(u.abs(), v.abs()) < 0.4
    cross = arms & (torch.maximum(u.abs(), v.abs()) < 1.2)
    each = torch.stack([ellipse, box, triangle, cross])
    return each[kind - 1, torch.arange(len(kind))]


def _surface(kind: Tensor, chance: Tensor) -> Tensor:
    """0 plain, 1 striped, 2 spotted: the typical one, or another at random."""
    any_of_three = (3 * chance[:, 0]).long()
    typical = (chance[:, 1] < (TYPICAL - 1 / 3) / (2 / 3)) & (kind != UNSEEN)
    return torch.where(typical, kind - 1, any_of_three)


def _pattern(surface: Tensor, u: Tensor, v: Tensor, phase: Tensor) -> Tensor:
    """[image, size, size] between 0 and 1: how much of the first of two colours."""
    stripes = 0.5 + 0.5 * torch.sin(7 * u + phase[..., None])
    spots = 0.5 + 0.5 * torch.sin(7 * u + phase[..., None]) * torch.sin(7 * v + phase[..., None])
    each = torch.stack([torch.ones_like(u), stripes, spots])
    return each[surface, torch.arange(len(surface))]


def _light(angle: Tensor, fall: Tensor, size: int) -> Tensor:
    """[image, size, size]: 1 on one side, 1 - fall on the other."""
    down, across = _grid(size)
    angle = angle[..., None]
    along = (torch.cos(angle) * (across - 0.5) + torch.sin(angle) * (down - 0.5)) / math.sqrt(2) + 0.5
    return 1 - fall[..., None] * along
