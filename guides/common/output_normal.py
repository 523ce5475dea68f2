"""The normal distribution over a network's outputs under a linearised posterior."""

from collections.abc import Iterable, Mapping

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from bayesnn.curvature.jacobian import jacobian_chunks
from bayesnn.functional import Inputs, check_evaluation_mode
from bayesnn.functional.roots import triangular
from bayesnn.models import BNN
from bayesnn.models.inputs import check_inputs
from bayesnn.sites import to_vector


def output_normal(chunks: Iterable[tuple[Tensor, Tensor]]) -> dist.MultivariateNormal:
    """N(f, A A^T), [batch] x [class], from (f [batch, class], A [batch, class, param]) in chunks
    of examples.

    A is the Jacobian times a root of the weights' covariance. Where it has fewer independent
    columns than there are classes the distribution is degenerate: it can be sampled, but has no
    density.
    """
    locs, roots = [], []
    for loc, half in chunks:
        locs.append(loc)
        roots.append(triangular(half))
    return dist.MultivariateNormal(torch.cat(locs), scale_tril=torch.cat(roots), validate_args=False)


def linearised_outputs(
    guide: nn.Module, model: object, means: Mapping[str, Tensor], scales: Mapping[str, Tensor], x: Inputs
) -> dist.MultivariateNormal:
    """N(f(x; m), J diag(s^2) J^T) of a factorised guide, [batch] x [class]: the network linearised
    at the mean.

    Args:
        guide: for its name.
        model: the guide's.
        means: {site: [*event]}.
        scales: {site: a number or [*event]}.
        x: inputs.

    Raises:
        TypeError: the guide's model is no `BNN`.
    """
    name = f"{type(guide).__name__}.output_distribution"
    if not isinstance(model, BNN):
        raise TypeError(f"{name}: linearisation needs a BNN as the model")
    check_evaluation_mode(model.net, name)
    check_inputs(x)
    scale = to_vector({site: scales[site].expand(shape) for site, shape in model.sites.items()}, model.sites)
    chunks = jacobian_chunks(model.outputs, {site: means[site] for site in model.sites}, x, numbers=model.touched)
    return output_normal((outputs, jac * scale) for _, outputs, jac in chunks)
