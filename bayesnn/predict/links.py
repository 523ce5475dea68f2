"""Closed-form predictives of y from a normal distribution over the network's
outputs: no draws, no noise of draws.
"""

import torch
from pyro import distributions as dist
from torch import Tensor
from torch import distributions as torch_dist

from bayesnn.likelihoods import HasBridgePredictive, HasNormalPredictive, HasProbitPredictive, Likelihood
from bayesnn.predict.distribution import PredictiveDistribution
from bayesnn.sites import base_of


@torch.no_grad()
def probit(likelihood: Likelihood, outputs: torch_dist.Distribution) -> PredictiveDistribution:
    """p(y) = softmax(f / sqrt(1 + pi/8 diag V)) for outputs N(f, V); binary: sigmoid of the same.

    The sigmoid is read as a probit of slope sqrt(pi/8), whose mean under a normal distribution is
    exact. Correlations between outputs are not used: for labels each class is shrunk by itself,
    and several binary targets are independent. V = 0 gives the network's own probabilities.

    Args:
        likelihood: `likelihoods.categorical`, `likelihoods.bernoulli`, or any with a method
            `probit_predictive`.
        outputs: [batch] x [class], as a guide's `output_distribution(x)` returns:
            `MultivariateNormal`, or `Normal(...).to_event(1)` where only the variances are known.

    Returns:
        One component and no draws, so that its `mutual_information` is 0: for that,
        `predictive(linearised=True)`.

    Raises:
        TypeError: another distribution of outputs.
        ValueError: another likelihood, a single class, shapes that do not fit, outputs that are
            not finite.

    References: Spiegelhalter, Lauritzen (1990), Sequential updating of conditional probabilities
    on directed graphical structures; MacKay (1992), The evidence framework applied to
    classification networks; for several classes Gibbs (1998), Bayesian Gaussian processes for
    regression and classification.

    >>> from bayesnn import likelihoods
    >>> outputs = dist.Normal(torch.tensor([[1.5]]), 2**0.5).to_event(1)
    >>> probit(likelihoods.bernoulli, outputs).probs            # the integral is 0.7513, without V it is 0.8176
    tensor([[[0.2455, 0.7545]]])
    """
    if not isinstance(likelihood, HasProbitPredictive):
        raise _unable("probit", likelihood, "probit_predictive", "likelihoods.categorical and likelihoods.bernoulli")
    mean, variance = _moments("probit", outputs)
    return PredictiveDistribution(likelihood.probit_predictive(mean.unsqueeze(0), variance.unsqueeze(0)))


@torch.no_grad()
def bridge(
    likelihood: Likelihood, outputs: torch_dist.Distribution, *, normalised: bool = False
) -> PredictiveDistribution:
    """p(y) = alpha / sum alpha, alpha_k = (1 - 2/K + exp(f_k) / K^2 sum_j exp(-f_j)) / V_kk for
    outputs N(f, V).

    The Laplace bridge: the mean of the Dirichlet distribution whose Laplace approximation in the
    logits has the mean f and the variances V_kk. f and V are first conditioned on logits that sum
    to zero: f - V1 1'f / 1'V1 and V - V1 1'V / 1'V1. Where V is not a Dirichlet's, the
    probabilities need not tend to the network's own as V shrinks, and for two classes of equal
    variance they never leave them.

    Args:
        likelihood: `likelihoods.categorical`, or any with a method `bridge_predictive`.
        outputs: [batch] x [class], as in `probit`.
        normalised: first divide f by sqrt(c) and V by c, with c = mean_k V_kk / sqrt(K/2). It
            makes large variances matter for the probabilities; small ones (c < 1) sharpen them,
            without limit as V shrinks.

    Returns:
        One component, as of `probit`. A V_kk of 0 after conditioning, or below by rounding, counts
        as rounding size.

    Raises:
        TypeError: another distribution of outputs.
        ValueError: as `probit`.

    References: Hobbhahn, Kristiadi, Hennig (2022), Fast predictive uncertainty for classification
    with Bayesian deep networks; MacKay (1998), Choice of basis for Laplace approximation.

    >>> from bayesnn import likelihoods
    >>> outputs = dist.MultivariateNormal(torch.tensor([[2.0, 0.5, -1.0]]), torch.eye(3))
    >>> bridge(likelihoods.categorical, outputs).probs
    tensor([[0.6876, 0.2095, 0.1029]])
    """
    if not isinstance(likelihood, HasBridgePredictive):
        raise _unable("bridge", likelihood, "bridge_predictive", "likelihoods.categorical")
    mean, variance = _moments("bridge", outputs)
    covariance = torch.diag_embed(variance)
    if isinstance(outputs, torch_dist.MultivariateNormal):
        covariance = outputs.covariance_matrix
    y = likelihood.bridge_predictive(mean.unsqueeze(0), covariance.unsqueeze(0), normalised=normalised)
    return PredictiveDistribution(y)


@torch.no_grad()
def gaussian(likelihood: Likelihood, outputs: torch_dist.Distribution) -> PredictiveDistribution:
    """p(y) = N(f, V + scale^2) for outputs N(f, V): exact for `likelihoods.normal`.

    For `likelihoods.heteroscedastic`, with means N(m, V) and log scales of mean s and variance v,
    it is N(m, V + exp(2 s + 2 v)): mean and covariance of y are exact, but y itself has longer
    tails than a normal.

    Args:
        likelihood: `likelihoods.normal` with a fixed or learned scale,
            `likelihoods.heteroscedastic`, or any with a method `normal_predictive`.
        outputs: [batch] x [out], as in `probit`.

    Returns:
        One component, whose variance is all aleatoric by its own account; the epistemic part is
        `outputs.variance`. It is a `MultivariateNormal` where the covariance of several targets is
        known: `log_prob` and `sample` are joint, `cdf`, `icdf` and `interval` those of each
        target.

    Raises:
        TypeError: another distribution of outputs.
        ValueError: another likelihood or a latent scale; shapes that do not fit; outputs that are
            not finite.

    Reference: Immer, Korzepa, Bauer (2021), Improving predictions of Bayesian neural nets via
    local linearization.

    >>> from bayesnn import likelihoods
    >>> outputs = dist.Normal(torch.zeros(1, 1), 3.0).to_event(1)
    >>> gaussian(likelihoods.normal(4.0), outputs).variance     # 3^2 + 4^2
    tensor([[25.]])
    """
    if not isinstance(likelihood, HasNormalPredictive):
        raise _unable("gaussian", likelihood, "normal_predictive", "likelihoods.normal and likelihoods.heteroscedastic")
    mean, variance = _moments("gaussian", outputs)
    covariance = outputs.covariance_matrix.double() if isinstance(outputs, torch_dist.MultivariateNormal) else None
    loc, spread = likelihood.normal_predictive(mean, variance if covariance is None else covariance)
    if not bool(spread.isfinite().all()):
        raise ValueError("gaussian: the variance of y is not finite; is that of the log scale in the hundreds?")
    if covariance is None:
        return PredictiveDistribution(dist.Normal(loc.unsqueeze(0), spread.sqrt().unsqueeze(0)).to_event(1))
    root = torch.linalg.cholesky(spread).to(loc.dtype).unsqueeze(0)
    if loc.shape[-1] == 1:
        return PredictiveDistribution(dist.Normal(loc.unsqueeze(0), root.squeeze(-1)).to_event(1))
    return PredictiveDistribution(dist.MultivariateNormal(loc.unsqueeze(0), scale_tril=root))


def _unable(where: str, likelihood: object, method: str, able: str) -> ValueError:
    """The message for a likelihood that has no closed form here."""
    kind = getattr(likelihood, "__name__", type(likelihood).__name__)
    return ValueError(
        f"{where}: the likelihood {kind} has no method {method}, which {able} have; for any likelihood there is "
        "predictive(guide, x, linearised=True)"
    )


def _moments(where: str, outputs: torch_dist.Distribution) -> tuple[Tensor, Tensor]:
    """Means and variances [batch, class] of outputs that this link can take."""
    base = base_of(outputs)
    if not isinstance(base, (torch_dist.MultivariateNormal, torch_dist.Normal)):
        raise TypeError(
            f"{where}: a normal distribution of outputs is needed, such as guide.output_distribution(x), not "
            f"{type(base).__name__}"
        )
    if len(outputs.batch_shape) != 1 or len(outputs.event_shape) != 1:
        raise ValueError(
            f"{where}: the outputs must be [batch] x [class], but have batch shape {tuple(outputs.batch_shape)} and "
            f"event shape {tuple(outputs.event_shape)}; of variances alone, give Normal(mean, scale).to_event(1)"
        )
    mean, variance = outputs.mean, outputs.variance
    wrong = ~(mean.isfinite() & variance.isfinite())
    if bool(wrong.any()):
        example, output = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"{where}: the outputs of example {example} are not finite: output {output} has mean "
            f"{mean[example, output].item():g} and variance {variance[example, output].item():g}"
        )
    return mean, variance
