"""The Faddeeva function w(z) = exp(-z^2) erfc(-i z) of the upper half plane,
with its derivatives in closed form.
"""

import math
from typing import Any

import torch
from torch import Tensor

from bayesnn.distributions.chunks import in_chunks

STEP = 0.5
"""h, the distance of two nodes: the rule's error is exp(-pi^2 / h^2) = 7e-18."""
NODES = 26
"""They reach 6.25 from the origin, where exp(-t^2) = 1e-17."""
HIGHEST = 3
"""The highest derivative."""


def faddeeva(x: Tensor, y: Tensor, highest: int = 0) -> tuple[Tensor, ...]:
    """(w(z), w'(z), ..., the derivative of order `highest` <= 3) at z = x + i y, y >= 0: complex
    tensors.

    By the trapezoidal rule for w(z) = i/pi int exp(-t^2) / (z - t) dt, with the residue at its
    pole t = z,

        w(z) ~ i h/pi sum_k exp(-t_k^2) / (z - t_k) + 2 exp(-z^2) / (1 + exp(2 pi y / h)),

    whose nodes t_k lie h apart and x in the middle between two of them. The real part of w is
    accurate to 3e-14 relative, for small y too, as it is a sum of positive terms, and w to 1e-15
    of its modulus. Its derivatives are those of the same sum: for large |z| nothing cancels as it
    does in w' = -2 z w + 2i/sqrt(pi).

    Args:
        x: real part of z, double.
        y: imaginary part, double, of the same shape.
        highest: 0 to 3.

    Raises:
        NotImplementedError: a fourth derivative, by autograd.

    Reference: Chiarella and Reichel, Mathematics of Computation 22 (1968); Al Azah and
    Chandler-Wilde, SIAM Journal on Numerical Analysis 59 (2021).

    >>> w, = faddeeva(torch.tensor([0.0, 1.0]).double(), torch.tensor([1.0, 0.0]).double())
    >>> w
    tensor([0.4276+0.0000j, 0.3679+0.6072j], dtype=torch.complex128)
    """
    return _Faddeeva.apply(x, y, highest)


def voigt_function(x: Tensor, y: Tensor) -> Tensor:
    """Re w(x + i y) as `faddeeva` gives it, in real arithmetic and without derivatives."""
    return in_chunks(lambda x, y: (_real_part(x, y),), x, y)[0]


class _Faddeeva(torch.autograd.Function):
    """Its derivatives are the same function with one order more."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, y: Tensor, highest: int) -> tuple[Tensor, ...]:
        return in_chunks(lambda x, y: _evaluate(x, y, highest), x, y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, y, ctx.highest = inputs
        ctx.save_for_backward(x, y)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        if ctx.highest == HIGHEST:
            raise NotImplementedError("Voigt has first and second derivatives only; differentiate at most twice")
        x, y = ctx.saved_tensors
        slopes = faddeeva(x, y, ctx.highest + 1)[1:]
        total = sum((g.conj() * slope for g, slope in zip(gradients, slopes, strict=True)), torch.zeros(()))
        return total.real, -total.imag, None  # w is analytic: dw/dy = i dw/dx


def nodes(x: Tensor) -> tuple[Tensor, Tensor]:
    """x - t_k and exp(-t_k^2), each [*x, node]."""
    nearest = torch.round(x / STEP)
    steps = torch.arange(NODES, dtype=x.dtype, device=x.device) - (NODES - 1) / 2
    t = (x - nearest * STEP).unsqueeze(-1) + steps * STEP
    return (nearest.unsqueeze(-1) - steps) * STEP, torch.exp(-(t**2))


def _real_part(x: Tensor, y: Tensor) -> Tensor:
    distance, weight = nodes(x)
    total = (weight / (distance**2 + y.unsqueeze(-1) ** 2)).sum(-1)
    inside, held = _in_strip(y)
    bell = 2 * inside * torch.exp((held - x) * (held + x)) * torch.cos(2 * x * held)
    return STEP / math.pi * y * total + bell * torch.sigmoid(-2 * math.pi / STEP * held)


def _in_strip(y: Tensor) -> tuple[Tensor, Tensor]:
    """Whether the pole lies in the strip that the rule integrates around; only
    there it has a residue.
    """
    edge = math.pi / STEP
    return y < edge, y.clamp(max=edge)


def _evaluate(x: Tensor, y: Tensor, highest: int) -> tuple[Tensor, ...]:
    distance, weight = nodes(x)
    scale = 1 / (distance**2 + y.unsqueeze(-1) ** 2)
    inverse = torch.complex(distance * scale, -y.unsqueeze(-1) * scale)  # 1 / (z - t_k)
    factor, term, result = STEP / math.pi, weight * inverse, []
    for order, residue in enumerate(_residues(x, y, highest)):
        result.append(1j * factor * term.sum(-1) + residue)
        factor = -(order + 1) * factor
        if order < highest:
            term = term * inverse
    return tuple(result)


def _residues(x: Tensor, y: Tensor, highest: int) -> list[Tensor]:
    """The derivatives of 2 exp(-z^2) g(z), g = 1 / (1 - exp(-i b
    (z - t_k))) = 1 / (1 + exp(b y)), b = 2 pi / h.
    """
    b = 2 * math.pi / STEP
    inside, y = _in_strip(y)
    g, z = torch.sigmoid(-b * y), torch.complex(x, y)
    bell = torch.polar(2 * inside * torch.exp((y - x) * (y + x)), -2 * x * y)
    g_slopes = [g]  # by 1 / (i b)^n
    if highest > 0:
        g_slopes.append(g * (1 - g))
    if highest > 1:
        g_slopes += [g_slopes[1] * (1 - 2 * g), g_slopes[1] * (1 - 6 * g_slopes[1])]
    hermite = [torch.ones_like(z), -2 * z]  # bell's slopes by bell
    for n in range(1, highest):
        hermite.append(-2 * z * hermite[n] - 2 * n * hermite[n - 1])
    result = [bell * g]
    for n in range(1, highest + 1):
        terms = [math.comb(n, j) * (1j * b) ** j * hermite[n - j] * g_slopes[j] for j in range(n + 1)]
        result.append(bell * sum(terms[1:], terms[0]))
    return result
