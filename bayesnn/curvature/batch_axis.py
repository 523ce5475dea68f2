"""Which axis of a layer's output is the batch, concluded from derivatives and
from nothing else.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from bayesnn.curvature.evidence import agree, seeded_normal
from bayesnn.curvature.fallback import NoRule
from bayesnn.curvature.layer_rules import Use
from bayesnn.curvature.layers import Pass

Axis = tuple[int, bool]
"""`Place.axis` and `Place.inner`."""


def settle(done: Pass) -> bool:
    """Find every layer's batch axis, and check its rule: two backward passes, one of them with
    weight gradients.

    Let g_p(u) be the derivative of sum_i u_i f_i at position p of a layer's output, for random
    cotangents u. Where the position serves example i alone, g_p(c u) = c_i g_p(u) for any number
    c_i an example: so an axis is the batch only if this holds at every position. c_i are powers of
    two, for which it holds to the last bit. The sum over examples of what the rule makes of g has
    to be autograd's gradient.

    Returns:
        Whether the axes are certain for other batches of these shapes. They are not where
        derivatives vanish for more than half of the examples: such an axis is right for this
        batch, in which it does not matter.

    Raises:
        NoRule: there is no such axis, as where a table is shared by all examples or examples are
            shuffled; a rule that disagrees with autograd.
    """
    outputs, batch = done.outputs.detach(), done.batch
    if outputs.shape[:1] != (batch,):
        name = next(iter(done.leaves))
        raise NoRule(name, f"outputs of shape {tuple(outputs.shape)} do not have the batch of {batch} as first axis")
    u = seeded_normal(outputs)
    codes = _codes(batch).to(outputs)
    first, true = done.back_to_leaves(u)
    second = done.back(u * codes.reshape(-1, *[1] * (outputs.dim() - 1)))
    certain = True
    for name, uses in done.uses.items():
        for use in uses:
            if use.place.axis is None:
                axis, enough = _axis(use, first[id(use)], second[id(use)], codes, name)
                use.place = replace(use.place, axis=axis[0], inner=axis[1])
                certain &= enough
    for name in done.leaves:  # also those that no function was seen to use
        totals = [use.total(use.roles[name], first[id(use)]) for use in done.uses.get(name, [])]
        ours = sum((total for total, _ in totals), torch.zeros_like(true[name]))
        if not agree(ours, true[name], sum(bound for _, bound in totals)):
            raise NoRule(name, "its rule does not give autograd's gradient")
    return certain


def _codes(batch: int) -> Tensor:
    """Sixteen different powers of two with signs, in a new random order for every sixteen
    examples, [batch].
    """
    generator = torch.Generator().manual_seed(0)
    powers = 2.0 ** torch.arange(-4, 4)
    both = torch.cat([powers, -powers])
    return torch.cat([both[torch.randperm(16, generator=generator)] for _ in range(-(-batch // 16))])[:batch]


def _axis(use: Use, first: Tensor, second: Tensor, codes: Tensor, name: str) -> tuple[Axis, bool]:
    """The batch axis, and whether there is enough evidence for it."""
    a, b = use.at_positions(first), use.at_positions(second)
    for axis in _candidates(a.shape[:-1], len(codes)):
        place = replace(use.place, axis=axis[0], inner=axis[1])
        by_example, scaled = (place.by_example(t).reshape(len(codes), -1, t.shape[-1]) for t in (a, b))
        if _proportional(by_example, scaled, codes):
            there = by_example.flatten(1).ne(0).any(1)
            return axis, bool(there.double().mean() >= 0.5)
    shape = tuple(use.place.shape)
    raise NoRule(name, f"no axis of its layer's output, {shape}, is the batch of {len(codes)}")


def _candidates(shape: torch.Size, batch: int) -> Iterator[Axis]:
    for axis, size in enumerate(shape):
        if size and size % batch == 0:
            yield axis, False
            if size > batch > 1:
                yield axis, True
        if batch == 1:
            return  # all positions are the one example's


def _proportional(first: Tensor, second: Tensor, codes: Tensor) -> bool:
    """second = c first at every position, [batch, position, entry]."""
    codes = codes.reshape(-1, 1, 1)
    size = first.abs()
    # Rounding stays below the second term; the first is for what some kernels do not repeat to the
    # last bit.
    slack = 1e-3 * size.amax(-1, keepdim=True) + 1e3 * torch.finfo(first.dtype).eps * size.max()
    return bool(((second - codes * first).abs() <= codes.abs() * slack).all())
