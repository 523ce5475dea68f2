"""Outputs and targets of a model with a normal last layer, in closed form."""

import torch
from pyro import distributions as dist

from bayesnn.functional import Inputs, check_evaluation_mode
from bayesnn.guides.last_layer.moments import class_log_densities, output_moments, rows_of
from bayesnn.likelihoods import HasNormalNoise
from bayesnn.models import GenerativeClassifier, NeuralLinear
from bayesnn.models.last_layer.model import LastLayerModel


@torch.no_grad()
def output_distribution(
    model: LastLayerModel, q: dist.TorchDistribution, x: Inputs, owner: str
) -> dist.MultivariateNormal:
    """N(phi^T m_k, phi^T S_k phi), [batch] x [out]; the outputs are
    independent, as the rows of W are.
    """
    if not isinstance(model, NeuralLinear):
        raise TypeError(
            f"{owner}.output_distribution: the outputs of a {type(model).__name__} are not normal; use "
            "target_distribution(x), or draws with predict"
        )
    check_evaluation_mode(model.features, f"{owner}.output_distribution")
    rows = rows_of(q)
    assert rows is not None
    mean, variance = output_moments(rows, model.phi(x))
    return dist.MultivariateNormal(mean, scale_tril=torch.diag_embed(variance.sqrt()), validate_args=False)


@torch.no_grad()
def target_distribution(
    model: LastLayerModel, q: dist.TorchDistribution, x: Inputs, owner: str
) -> dist.TorchDistribution:
    """p(y | x) with the last layer integrated out, [batch]."""
    rows = rows_of(q)
    assert rows is not None
    check_evaluation_mode(model.features, f"{owner}.target_distribution")
    if isinstance(model, GenerativeClassifier):
        return dist.Categorical(logits=class_log_densities(model, rows, model.phi(x)))
    assert isinstance(model, NeuralLinear)
    likelihood = model.likelihood
    if not isinstance(likelihood, HasNormalNoise) or isinstance(likelihood.noise, dist.Distribution):
        raise TypeError(
            f"{owner}.target_distribution: it is closed for likelihoods.normal without a latent scale; use "
            "predict.predictive(guide, x)"
        )
    mean, variance = output_moments(rows, model.phi(x))
    return dist.Normal(mean, (variance + model.noise_scale().square()).sqrt()).to_event(1)
