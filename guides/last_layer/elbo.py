"""The evidence lower bound of a Bayesian last layer, without draws."""

from collections.abc import Callable, Mapping
from typing import Any

from pyro import distributions as dist
from pyro import poutine
from torch import Tensor

from bayesnn.functional import Inputs
from bayesnn.guides.common.closed_form_elbo import ClosedFormELBO
from bayesnn.guides.expectations import jensen_bound
from bayesnn.guides.last_layer.moments import Rows, generative_bound, output_moments, row_kl, rows_of
from bayesnn.handlers import prefix_of, prefixed
from bayesnn.likelihoods import HasExpectation, HasLabelExpectation
from bayesnn.models import GenerativeClassifier
from bayesnn.models.last_layer.model import LastLayerModel
from bayesnn.sites import log_density, sample_nodes, weighted_sum


class LastLayerELBO(ClosedFormELBO):
    """-ELBO = KL(q(W) || p(W)) - sum_i E_q[log p(y_i | W phi(x_i))] in nats, in closed form: the
    loss of VBLL.

    Exact for a normal likelihood: with `LastLayer` at the exact posterior it is the negative log
    evidence. The expectation is that of the likelihood (`expected_log_prob`: normal,
    heteroscedastic, Poisson, Bernoulli); for labels it is bounded below by Jensen's inequality. It
    is a function of the parameters alone, without noise from draws, and works in batches: each sum
    is scaled by size / batch, the KL and the noise prior count once.

    `LastLayerELBO()(model, guide)` is a loss module whose parameters are the guide's, the body's
    and the learned scales; it works with `bayesnn.fit.fit`, with any torch optimiser and with
    `SVI`. For other likelihoods, latent scales or models use `MeanFieldELBO` or Pyro's ELBOs with
    the same guides.

    The logits have no noise of their own: the bound falls in its variance, so that it would be
    learned to be zero.

    Args:
        categorical: (mean [batch, class], variance [batch, class], labels [batch]) -> [batch], in
            place of E[log softmax(z)_y] for a `NeuralLinear` with `likelihoods.categorical`:
            `jensen_bound`, or `second_order`, which is no bound.

    Raises:
        TypeError: a model that is no `NeuralLinear` or `GenerativeClassifier`, or one hidden in a
            handler.
        ValueError: no targets, a likelihood without a closed form, a latent scale, a guide whose
            last layer is not normal with independent rows.

    Reference: Harrison, Willes, Snoek (2024), Variational Bayesian last layers, whose loss is this
    divided by `size`.

    >>> import torch
    >>> from torch import nn
    >>> from bayesnn import likelihoods
    >>> from bayesnn.guides import LastLayer
    >>> from bayesnn.models import NeuralLinear
    >>> model = NeuralLinear(nn.Sequential(nn.Linear(3, 8), nn.Tanh()), 8, 4, likelihoods.categorical, size=100)
    >>> loss = LastLayerELBO()(model, LastLayer(model))
    >>> bool(loss(torch.zeros(5, 3), torch.tensor([0, 1, 2, 3, 0])) > 0)
    True
    """

    def __init__(self, categorical: Callable[[Tensor, Tensor, Tensor], Tensor] = jensen_bound) -> None:
        super().__init__(num_particles=1)
        self.categorical = categorical

    def _negative_elbo(self, model: Any, guide: Any, x: Inputs, y: Tensor | None = None) -> Tensor:
        if not isinstance(model, LastLayerModel):
            raise TypeError(
                f"LastLayerELBO: the model must be a NeuralLinear or a GenerativeClassifier itself, not a "
                f"{type(model).__name__}; use MeanFieldELBO or Trace_ELBO for others, and handlers around the call"
            )
        if y is None:
            raise ValueError("LastLayerELBO: targets are needed, loss(x, y)")
        guided = poutine.trace(guide).get_trace(x, y)
        if model.site not in guided.nodes or (rows := rows_of(guided.nodes[model.site]["fn"])) is None:
            raise ValueError(
                f"LastLayerELBO: the guide needs a normal distribution at the site {model.site!r}, LastLayer(model)"
            )
        phi = model.phi(x)
        # no draw: the model is evaluated at the mean
        guided.nodes[model.site]["value"] = rows.mean
        nodes = poutine.trace(poutine.replay(model.head, trace=guided)).get_trace(phi, y).nodes
        return self._terms(model, rows, phi, nodes, y)

    def _terms(self, model: LastLayerModel, rows: Rows, phi: Tensor, nodes: Mapping[str, Any], y: Tensor) -> Tensor:
        total = phi.new_zeros(())
        for name, node in sample_nodes(nodes).items():
            if name == model.site:
                prior = rows_of(node["fn"])
                assert isinstance(prior, dist.Normal)
                total = total + weighted_sum(row_kl(rows, prior), node)
            elif name == prefix_of(model.name) + "y":
                total = total - weighted_sum(self._expectation(model, rows, phi, y), node)
            elif node["is_observed"]:  # the density of a point estimate
                total = total - weighted_sum(log_density(node), node)
            else:
                raise ValueError(f"LastLayerELBO: the site {name!r} is latent; use learned(...), or MeanFieldELBO")
        return total

    def _expectation(self, model: LastLayerModel, rows: Rows, phi: Tensor, y: Tensor) -> Tensor:
        """E_q[log p(y | W)] or its stand-in, [batch]."""
        if isinstance(model, GenerativeClassifier):
            return generative_bound(model, rows, phi, y)
        mean, variance = output_moments(rows, phi)
        likelihood = model.likelihood
        if isinstance(likelihood, HasExpectation):
            with prefixed(model.name):
                return likelihood.expected_log_prob(mean, variance, y)
        if isinstance(likelihood, HasLabelExpectation):
            return likelihood.expected_log_prob_by(self.categorical, mean, variance, y)
        kind = getattr(model.likelihood, "__name__", type(model.likelihood).__name__)
        raise ValueError(
            f"LastLayerELBO: the likelihood {kind} has no closed form here; use MeanFieldELBO, which draws"
        )
