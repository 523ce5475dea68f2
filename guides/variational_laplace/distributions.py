"""The parts of a distribution: the one without transforms, and the tensors that it holds."""

from collections.abc import Iterator
from typing import Any

import torch
from pyro import distributions as dist
from torch import Tensor
from torch.distributions import Transform
from torch.distributions.transforms import AffineTransform, ComposeTransform

from bayesnn.sites import base_of


def unconstrained(fn: Any) -> tuple[Any, Transform | None]:
    """(p(u), T) of a distribution of T(u) that is made of one of u and a
    bijection; (itself, None) of any other.
    """
    inner = base_of(fn)
    transforms = list(getattr(inner, "transforms", []))
    if not transforms or not all(transform.bijective for transform in transforms):
        return fn, None
    base = base_of(inner.base_dist)
    axes = fn.event_dim - inner.event_dim + len(inner.base_dist.event_shape) - len(base.event_shape)
    if isinstance(base, torch.distributions.Normal):  # torch's own, inside Pyro's LogNormal
        base = dist.Normal(base.loc, base.scale, validate_args=False)
    if not hasattr(base, "to_event"):
        return fn, None
    return base.to_event(axes), transforms[0] if len(transforms) == 1 else ComposeTransform(transforms)


def steps(transform: Transform) -> list[Transform]:
    """The transforms that a transform is made of, without those that change nothing."""
    if isinstance(transform, ComposeTransform):
        return [step for part in transform.parts for step in steps(part)]
    idle = isinstance(transform, AffineTransform) and transform == AffineTransform(0.0, 1.0)
    return [] if idle else [transform]


def tensors_of(part: Any) -> Iterator[Tensor]:
    """The tensors that a distribution, or a transform inside it, holds."""
    waiting, seen = [part], {id(part)}
    while waiting:
        for value in vars(waiting.pop()).values():
            for one in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(one, Tensor):
                    yield one
                elif (hasattr(one, "log_prob") or isinstance(one, Transform)) and id(one) not in seen:
                    seen.add(id(one))
                    waiting.append(one)
