"""The models of three responses."""

from collections.abc import Callable, Mapping

from pyro import distributions as dist
from torch import Tensor

from bayesnn.models.recast.effects import Effect
from bayesnn.models.recast.model import RECaST
from bayesnn.models.recast.responses import Binary, Categorical, Continuous
from bayesnn.models.recast.source import Source


def continuous(
    source: Source,
    *,
    effect: Effect | None = None,
    priors: Mapping[str, dist.TorchDistribution] | None = None,
    name: str = "",
) -> RECaST:
    """y_i = beta_i f_i + sigma e_i, beta_i ~ Cauchy(delta, gamma): y_i ~ Voigt(delta f_i, sigma,
    gamma |f_i|).

    Args:
        source: x -> f [batch] or [batch, 1], in units of y; None where x is f itself;
            `SourceDraws` where it is uncertain.
        effect: another family of beta, such as `NormalEffect()`: a comparison, not the published
            method.
        priors: {"delta", "log_gamma", "log_sigma"} -> distribution, on the scale of y; `PRIORS`
            otherwise.
        name: prefixes sites and plate.

    Shapes: y [batch].

    >>> import torch
    >>> model = continuous(None)
    >>> draws = {"delta": torch.ones(9), "log_gamma": torch.zeros(9), "log_sigma": torch.zeros(9)}
    >>> from bayesnn.predict import predictive
    >>> predictive(draws, torch.tensor([1.0, -2.0]), model=model).icdf(0.5)
    tensor([ 1.0000, -2.0000], dtype=torch.float64)
    """
    return RECaST(source, response=Continuous(), effect=effect, priors=priors, name=name)


def binary(
    source: Source,
    *,
    link: Callable[[Tensor], Tensor] | None = None,
    effect: Effect | None = None,
    priors: Mapping[str, dist.TorchDistribution] | None = None,
    name: str = "",
) -> RECaST:
    """P(y_i = 1) = E expit(beta_i f_i), beta_i ~ Cauchy(delta, gamma).

    Args:
        source: x -> f [batch] or [batch, 1], logits; None where x is f itself; `SourceDraws` where
            it is uncertain.
        link: what takes the source's predictions to logits: `torch.logit` for probabilities.
        effect: as of `continuous`.
        priors: {"delta", "log_gamma"} -> distribution; `PRIORS` otherwise.
        name: as of `continuous`.

    Shapes: y [batch], zeros and ones.

    >>> import torch
    >>> model = binary(None)
    >>> draws = {"delta": torch.ones(9), "log_gamma": torch.tensor(0.5).log().expand(9)}
    >>> from bayesnn.predict import predictive
    >>> predictive(draws, torch.tensor([0.7]), model=model).probs[:, 1]
    tensor([0.6419], dtype=torch.float64)
    """
    return RECaST(source, response=Binary(), effect=effect, link=link, priors=priors, name=name)


def categorical(
    source: Source,
    *,
    link: Callable[[Tensor], Tensor] | None = None,
    effect: Effect | None = None,
    priors: Mapping[str, dist.TorchDistribution] | None = None,
    name: str = "",
) -> RECaST:
    """P(y_i = k) = E softmax(beta_i c_i)_k, beta_i ~ Cauchy(delta, gamma): labels of several
    classes.

    c_i are the source's logits minus their mean over classes. One effect for each example makes
    all its log odds steeper or flatter together; a negative one turns the order of the classes
    around. With two classes it is `binary` of c_1 - c_0. This extension is ours, not in the paper,
    which has binary labels only. There is no closed form: see `distributions.StudentTCategorical`
    for accuracy and cost: corrected draws take 3 s for 60 examples of three classes, 20 s for 250
    of ten.

    Args:
        source: x -> logits [batch, class]; None where x is the logits; `SourceDraws` where it is
            uncertain.
        link: what takes the source's predictions to logits: `torch.log` for probabilities.
        effect: as of `continuous`.
        priors: as of `binary`.
        name: as of `continuous`.

    Shapes: y [batch], labels 0 to class - 1.

    >>> import torch
    >>> model = categorical(None)
    >>> draws = {"delta": torch.ones(9), "log_gamma": torch.tensor(0.5).log().expand(9)}
    >>> from bayesnn.predict import predictive
    >>> predictive(draws, torch.tensor([[1.0, 0.0, -1.0]]), model=model).probs
    tensor([[0.6152, 0.2048, 0.1799]], dtype=torch.float64)
    """
    return RECaST(source, response=Categorical(), effect=effect, link=link, priors=priors, name=name)
