"""A guide with normal sites, evaluated at its means: nothing is drawn."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.autograd.graph import get_gradient_edge
from torch.distributions import Transform

from bayesnn.guides.variational_laplace.distributions import tensors_of, unconstrained
from bayesnn.sites import base_of, is_auxiliary, is_latent, latent_nodes

NORMAL = (dist.Normal, dist.MultivariateNormal, dist.LowRankMultivariateNormal)


@dataclass(frozen=True, eq=False)
class Block:
    """One normal distribution of a guide.

    Attributes:
        site, normal: its node in the guide's trace, and `site["fn"]` without independent axes.
        mean: what derivatives are taken in.
        pieces: {site of the model: its value}; the mean itself, or parts of it that the guide's
            Delta sites take.
        constrained: {site of the model: its transform} of pieces that are transforms of the mean,
            or of parts of it; None for that of the site's support.
    """

    site: Mapping[str, Any]
    normal: dist.TorchDistribution
    mean: Tensor
    pieces: dict[str, Tensor] = field(default_factory=dict)
    constrained: dict[str, Transform | None] = field(default_factory=dict)

    def variance_along(self, g: Tensor) -> Tensor:
        """sum g^T S g, with S the covariance."""
        if isinstance(self.normal, dist.Normal):
            return torch.dot(g := (_one(self.normal.scale) * g).reshape(-1), g)
        if isinstance(self.normal, dist.MultivariateNormal):
            return (self.normal.scale_tril.mT @ g.unsqueeze(-1)).square().sum()
        diagonal, factor = self.normal._unbroadcasted_cov_diag, self.normal._unbroadcasted_cov_factor
        return (diagonal * g.square()).sum() + (factor.mT @ g.unsqueeze(-1)).square().sum()


def at_means(guide: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, list[Block]]:
    """The guide's trace with every normal site at its mean, and its blocks.

    Raises:
        ValueError: a site that is neither normal nor a bijection of one that is (named, with the
            remedy); a site whose distribution depends on another site's draw; a Delta site that is
            no part of a normal one.
        TypeError: means in half precision.
    """
    with _AtMeans() as at:
        trace = poutine.trace(guide).get_trace(*args, **kwargs)
    blocks, points = list[Block](), []
    for name, site in latent_nodes(trace.nodes).items():
        fn, transform = unconstrained(site["fn"])
        normal = base_of(fn)
        if isinstance(normal, dist.Delta):
            points.append((name, site, normal))
            continue
        block = Block({**site, "fn": fn}, normal, at.means[name])
        if depends_on([*_parameters(normal), *(() if transform is None else tensors_of(transform))], blocks):
            raise ValueError(
                f"VariationalLaplaceELBO: the guide's site {name!r} depends on the draw of another site, so that the "
                "guide is no product of normal distributions; put both sites into one MultivariateNormal"
            )
        if not is_auxiliary(site):
            block.pieces[name] = site["value"]
            if transform is not None:
                block.constrained[name] = transform
        blocks.append(block)
    for name, site, delta in points:
        owner = _owner(name, delta, blocks)
        owner.pieces[name] = owner.mean if _is_whole(site, owner) else site["value"]
        density = torch.as_tensor(delta.log_density)  # -log |dT/du|
        if density.requires_grad or bool(density.any()):
            owner.constrained[name] = None
    if not blocks:
        raise ValueError("VariationalLaplaceELBO: the guide has no normal site")
    return trace, blocks


def depends_on(tensors: Iterable[Tensor], blocks: Iterable[Block]) -> bool:
    """Whether one of the tensors was computed from a mean of these blocks."""
    targets = {get_gradient_edge(block.mean).node for block in blocks}
    waiting = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
    seen = set(waiting)
    while waiting and targets:
        node = waiting.pop()
        if node in targets:
            return True
        for other, _ in node.next_functions:
            if other is not None and other not in seen:
                seen.add(other)
                waiting.append(other)
    return False


class _AtMeans(Messenger):
    """Gives every normal site its mean as its value, and every transform of one
    the transform of the mean.
    """

    def __init__(self) -> None:
        super().__init__()
        self.means: dict[str, Tensor] = {}

    def _pyro_sample(self, msg: Any) -> None:
        if msg["value"] is not None or not is_latent(msg):
            return
        inner, transform = unconstrained(msg["fn"])
        fn = base_of(inner)
        if isinstance(fn, dist.Delta):
            return
        if not isinstance(fn, NORMAL):
            raise ValueError(f"VariationalLaplaceELBO: the guide's site {msg['name']!r} {_why_not(base_of(msg['fn']))}")
        mean = fn.mean if fn.mean.requires_grad else fn.mean.detach().requires_grad_()
        if mean.dtype in (torch.float16, torch.bfloat16):
            raise TypeError(
                f"VariationalLaplaceELBO: the guide's site {msg['name']!r} is {mean.dtype}, whose squares have hardly "
                "any digits; keep the guide in float32 and compute the network in half precision by torch.autocast"
            )
        mean = mean.view_as(mean)  # a tensor of its own, where sites share their parameters
        self.means[msg["name"]] = mean
        msg["value"] = mean if transform is None else transform(mean)


def _why_not(fn: Any) -> str:
    if fn.has_enumerate_support or fn.support.is_discrete:
        return "is discrete; sum it out of the model (pyro.infer.config_enumerate) and leave it out of the guide"
    return f"is {type(fn).__name__}, not normal; use a Normal or MultivariateNormal there, or Trace_ELBO"


def _parameters(normal: Any) -> list[Tensor]:
    held = ("loc", "scale", "_unbroadcasted_scale_tril", "_unbroadcasted_cov_factor", "_unbroadcasted_cov_diag")
    return [vars(normal)[name] for name in held if name in vars(normal)]


def _owner(name: str, delta: Any, blocks: list[Block]) -> Block:
    owners = [block for block in blocks if delta.v is block.mean or depends_on([delta.v], [block])]
    if len(owners) == 1:
        return owners[0]
    raise ValueError(
        f"VariationalLaplaceELBO: the guide's site {name!r} is a Delta, which must be a part of one normal site, or "
        "its transform: a point has no variance here"
    )


def _is_whole(site: Any, block: Block) -> bool:
    """Whether a Delta's value is the mean itself, seen through another tensor."""
    value, mean = site["value"], block.mean
    same = value.data_ptr() == mean.data_ptr() and value.stride() == mean.stride() and value.shape == mean.shape
    return same and bool(site["fn"].batch_shape == block.site["fn"].batch_shape)


def _one(value: Tensor) -> Tensor:
    """The one number behind an expanded tensor, or the tensor."""
    return value[(0,) * value.dim()] if value.numel() > 1 and not any(value.stride()) else value
