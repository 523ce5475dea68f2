"""Sums of products that are written with indices: `einsum`."""

from typing import Any

import torch
from torch import Tensor

from bayesnn.moments.products import bilinear_moments
from bayesnn.moments.table import moment_rule
from bayesnn.moments.value import Moments, loc_of


@moment_rule(torch.einsum)
def _einsum(equation: Any, *operands: Any) -> Moments:
    """Exact for one random tensor and a certain one, or an input and a weight of the network."""
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    if not isinstance(equation, str) or len(operands) > 2:
        raise NotImplementedError(
            "moments: einsum has a rule for an equation of one or two tensors; write longer products as several"
        )
    terms, result = _indices(equation)
    if len(operands) == 1:
        x, text = operands[0], f"{terms[0]}->{result}"
        return Moments(torch.einsum(text, x.loc), torch.einsum(text, x.variance))
    left, right = (_summed(x, own, other + result) for x, own, other in zip(operands, terms, terms[::-1], strict=True))
    text = f"{left[1]},{right[1]}->{result}"

    def product(a: Tensor, b: Tensor) -> Tensor:
        return torch.einsum(text, a, b)

    return bilinear_moments(product, left[0], right[0])


def _indices(equation: str) -> tuple[list[str], str]:
    """The indices of every tensor and of the result; without an arrow those
    there once, in order.
    """
    left, arrow, result = equation.replace(" ", "").partition("->")
    if not arrow:
        letters = left.replace(",", "").replace(".", "")
        result = "..." * ("..." in left) + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    return left.split(","), result


def _summed(x: Any, own: str, elsewhere: str) -> tuple[Any, str]:
    """The tensor summed over indices that only it has: every product has its
    own random entries.
    """
    kept = "".join(c for c in own if c == "." or c in elsewhere)
    if kept == own:
        return x, own
    text = f"{own}->{''.join(dict.fromkeys(kept.replace('...', '')))}"
    if "..." in own:
        text = text.replace("->", "->...")
    letters = text.partition("->")[2]
    if not isinstance(x, Moments):
        return torch.einsum(text, x), letters
    found = Moments(torch.einsum(text, loc_of(x)), torch.einsum(text, x.variance))
    found.is_weight = x.is_weight
    return found, letters
