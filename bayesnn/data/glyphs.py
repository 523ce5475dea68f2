"""Letters that look as if MNIST's writers had written them: images near the
digits, and of no digit's class.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from bayesnn.data._optional import needed
from bayesnn.data._warp import MNIST_CENTRE, centre_of_mass, turn, warp

LETTERS = "ACDEFGHJKLMNPRTUVWXYacdefhkmnprtuvwxy"
"""The 37 letters that `letters` draws. Left out, because people write digits so: O Q o (0), I i j
l (1), Z z (2), S s (5), b (6), B (8), g q (9)."""

_BOX = 18.5  # pixels, high or wide; turned and slanted, letters have MNIST's 20 on average
_FINE = 4  # letters are drawn four times finer than MNIST, then averaged: grey edges as in a scan
_FONT_SIZE = 140  # pixels of the outline drawn first; only the ratio to _STROKES matters
_STROKES = (0, 1, 2, 3)  # added around the outline at _FONT_SIZE: stems of 2 to 4 pixels of MNIST
_DEGREES, _SHEAR, _SHIFT = 12.0, 0.2, 0.5
_CHUNK = 512  # images warped at a time: 25 MB


def letters(n: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Capital and small letters in MNIST's format: out-of-distribution images for a classifier of
    digits.

    Each is drawn uniformly from `LETTERS` and set in Pillow's built-in font with MNIST's
    conventions (about 20 pixels high or wide, grey edges, the same centre of mass) and a writer's
    variation, all uniform: strokes of 2 to 4 pixels, turned by up to 12 degrees, slanted by up to
    0.2 (11 degrees), moved by up to half a pixel.

    Shapes: `[n, 1, 28, 28]` float32.
    Units: intensity, 0 = paper to 1 = ink.
    `generator` (torch's global one by default) lives on the CPU.

    Raises:
        ImportError: Pillow is not installed, or has no FreeType.
        ValueError: n is below 1.

    Source: as notMNIST and EMNIST letters are used against MNIST, e.g. Lakshminarayanan, Pritzel
    and Blundell (2017), Simple and scalable predictive uncertainty estimation using deep
    ensembles, section 3.5.

        >>> import torch
        >>> from bayesnn.data import letters
        >>> letters(200, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([200, 1, 28, 28])
    """
    if n < 1:
        raise ValueError(f"letters: n is {n}; ask for one letter or more")
    fine = _drawn()
    which = torch.randint(len(fine), (n,), generator=generator)
    degrees, shear, *moved = (2 * torch.rand(n, 4, generator=generator) - 1).unbind(-1)
    slant = torch.eye(2).repeat(n, 1, 1)
    slant[:, 0, 1] = _SHEAR * shear
    linear = turn(torch.deg2rad(_DEGREES * degrees)) @ slant
    centre = _FINE * (MNIST_CENTRE + _SHIFT * torch.stack(moved, -1)[:, :, None])
    matrix = torch.cat([linear, centre_of_mass(fine)[which, :, None] - linear @ centre], -1)
    pairs = zip(which.split(_CHUNK), matrix.split(_CHUNK), strict=True)
    return torch.cat([F.avg_pool2d(warp(fine[part], affine), _FINE) for part, affine in pairs]).clamp(0, 1)


def _drawn() -> Tensor:
    """Every letter with every stroke, in the middle:
    `[letter * stroke, 1, 28 * _FINE, 28 * _FINE]`.
    """
    with needed("pillow>=10.1", by="letters"):
        from PIL import Image, ImageDraw, ImageFont, features

        if not features.check("freetype2"):
            raise ImportError("this Pillow was built without FreeType")
    font = ImageFont.load_default(_FONT_SIZE)
    side = 28 * _FINE
    drawn = torch.zeros(len(LETTERS) * len(_STROKES), 1, side, side)
    for i, (letter, stroke) in enumerate((letter, stroke) for letter in LETTERS for stroke in _STROKES):
        page = Image.new("L", (2 * _FONT_SIZE, 2 * _FONT_SIZE))
        ImageDraw.Draw(page).text((_FONT_SIZE / 2, _FONT_SIZE / 2), letter, fill=255, font=font, stroke_width=stroke)
        page = page.crop(page.getbbox())
        scale = _BOX * _FINE / max(page.size)
        width, height = math.ceil(page.width * scale), math.ceil(page.height * scale)
        page = page.resize((width, height), Image.Resampling.BOX)
        pixels = torch.frombuffer(bytearray(page.tobytes()), dtype=torch.uint8).reshape(height, width)
        left, top = (side - width) // 2, (side - height) // 2
        drawn[i, 0, top : top + height, left : left + width] = pixels / 255
    return drawn
