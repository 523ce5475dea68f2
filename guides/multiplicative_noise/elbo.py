"""An ELBO that draws no weights: moments through the network, the KL divergence in closed form."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from bayesnn.functional import Inputs, batch_size, check_layers, mode_dependent
from bayesnn.guides.common.closed_form_elbo import ClosedFormELBO
from bayesnn.guides.expectations.expected_log_likelihood import expected_log_likelihood
from bayesnn.guides.expectations.logit_draws import LogitDraws
from bayesnn.guides.expectations.output_covariance import spread_of
from bayesnn.guides.multiplicative_noise.guide import MultiplicativeNoise
from bayesnn.models import BNN
from bayesnn.models.checks import minibatch_scale
from bayesnn.models.inputs import check_inputs
from bayesnn.models.observe import check_target
from bayesnn.moments import propagate_moments


class MomentPropagationELBO(ClosedFormELBO):
    """-ELBO = kl_weight KL(q(w) || p(w)) - size / batch sum_i E[log p(y_i | f)], f ~ N(m_i, v_i),
    in nats.

    Means m and variances v of the outputs come from one pass of moments through the unchanged
    network, so that the loss has no noise of drawn weights: for real targets none at all, for
    labels that of drawn logits. It is the ELBO under the approximations of that pass: normal
    outputs, and covariances between units only where the guide keeps them (`covariance=True`).

    `MomentPropagationELBO()(model, guide)` is a loss module; it works with `bayesnn.fit.fit`, with
    any torch optimiser and with `SVI`.

    Args:
        categorical: (mean [batch, class], variance [batch, class], labels [batch]) -> [batch], for
            `likelihoods.categorical`: `LogitDraws(64)`, `second_order` (the delta method) or
            `probit_score`. The variance is a covariance [batch, class, class] where the guide
            keeps covariances.
        kl_weight: below 1 it is a tempered posterior, which is no longer Bayes' rule: the
            published results have weights of 0.001 to 0.012. `to_arviz` keeps it with the
            posterior.
        draws: of the outputs, for likelihoods without a formula.

    Raises:
        TypeError: a guide that is no `MultiplicativeNoise`, or a model that is no `BNN`.
        ValueError: no targets, targets that do not fit, a latent scale of prior or likelihood, a
            prior that is not normal, a network in training mode.
        NotImplementedError: an operation of the network without a moment rule, or a random
            parameter that it uses twice (tied weights); it names the place.

    Reference: Schmitt, Roth (2021), Sampling-free variational inference for neural networks with
    multiplicative activation noise.

    >>> import torch
    >>> from torch import nn
    >>> from bayesnn import likelihoods, priors, subset
    >>> net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.categorical, size=100)
    >>> loss = MomentPropagationELBO()(model, MultiplicativeNoise(model))
    >>> bool(loss(torch.zeros(4, 2), torch.tensor([0, 1, 2, 0])) > 0)
    True
    """

    def __init__(
        self,
        categorical: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
        *,
        kl_weight: float = 1.0,
        draws: int = 64,
    ) -> None:
        super().__init__(num_particles=1)
        if not kl_weight >= 0:
            raise ValueError(f"MomentPropagationELBO: kl_weight is a number from 0, not {kl_weight}")
        self.categorical = LogitDraws() if categorical is None else categorical
        self.kl_weight, self.draws = float(kl_weight), draws

    def _negative_elbo(self, model: Any, guide: Any, x: Inputs, y: Tensor | None = None) -> Tensor:
        if not isinstance(guide, MultiplicativeNoise) or not isinstance(model, BNN):
            raise TypeError(
                f"MomentPropagationELBO: moments need a BNN and a MultiplicativeNoise guide themselves, not "
                f"{type(model).__name__} and {type(guide).__name__}; use MeanFieldELBO or Trace_ELBO for others"
            )
        if y is None:
            raise ValueError("MomentPropagationELBO: targets are needed, loss(x, y)")
        check_layers(mode_dependent(model.net), "MomentPropagationELBO")
        check_inputs(x)
        moments = guide.moments()
        outputs = propagate_moments(model.net, moments, x, covariance=guide.covariance)
        check_target(model.likelihood(outputs.loc.detach()), y)
        scale = minibatch_scale(model.size, batch_size(x))
        expected = expected_log_likelihood(
            model.likelihood, outputs.loc, spread_of(outputs), y, categorical=self.categorical, draws=self.draws
        ).sum()
        return guide.kl(model, moments) * self.kl_weight - scale * expected
