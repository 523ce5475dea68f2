"""The variances of a normal guide in closed form, and a faster learning rate for those that are learned."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from bayesnn.functional import Inputs
from bayesnn.guides.laplace import Diagonal, Laplace
from bayesnn.guides.laplace.fisher import Fisher, exact
from bayesnn.guides.mean_field import MeanField
from bayesnn.guides.shared_variance import SharedVariance
from bayesnn.guides.variational_laplace import VariationalLaplaceLoss
from bayesnn.models import BNN

Loader = Iterable[tuple[Inputs, Tensor]]

SUFFIXES = ("scale", "log_scale", "scales", "scale_tril", "scale_unconstrained", "cov_factor", "cov_diag", "rho")


@torch.no_grad()
def fit_variances(
    guide: MeanField | SharedVariance, loader: Loader, *, kl_weight: float = 1.0, fisher: Fisher = exact
) -> Any:
    """s_j^2 = 1 / (F_j / lambda + P_j): set the variances to the optimum of the ELBO at the present means.

    F is the diagonal of the Fisher information of all training data, P the prior's precision. A variance that a group
    of weights shares takes the means of F and P over the group. Then the ELBO of variational Laplace is, for
    lambda = 1, the log evidence of a diagonal Laplace approximation at the means, and the variances are its own.

    Args:
        guide: its means stay, its `log_scale` is set. The model must be a `BNN` with a normal prior of fixed scales.
        loader: batches (x, y) of the training data, each example once; one pass.
        kl_weight: lambda, that of the ELBO.
        fisher: as in `Laplace`: `exact`, `MonteCarlo()` or `empirical`.

    Returns:
        the guide.

    Raises:
        ValueError: as `Laplace.fit`; a KL weight that is not positive.
        TypeError: another guide, or a model that is no `BNN`.

    >>> from bayesnn import likelihoods, priors, subset
    >>> net = nn.Linear(1, 1, bias=False)
    >>> model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.normal(1.0))
    >>> guide = fit_variances(MeanField(model), [(torch.ones(3, 1), torch.zeros(3, 1))])
    >>> guide.log_scale.exp() ** 2                                  # 1 / (3 + 1)
    tensor([0.2500], grad_fn=<PowBackward0>)
    """
    model = _checked(guide)
    if not kl_weight > 0:
        raise ValueError(f"fit_variances: the weight of the KL must be positive, not {kl_weight}")
    names = list(model.sites)
    parts = guide.loc.detach().split([shape.numel() for shape in model.sites.values()])
    means = {name: part.reshape(model.sites[name]) for name, part in zip(names, parts, strict=True)}
    laplace = Laplace(model, means, structure=Diagonal, fisher=fisher).fit(loader)
    assert isinstance(laplace.structure, Diagonal)
    share = 1.0 if model.size is None else model.size / float(laplace.examples)
    precision = laplace.structure.diagonal * (share / kl_weight) + laplace.prior_precision.double()
    if isinstance(guide, SharedVariance):
        of_site = dict(zip(names, precision.split([shape.numel() for shape in model.sites.values()]), strict=True))
        groups = [torch.cat([of_site[name] for name in members]).mean() for members in guide.groups.values()]
        precision = torch.stack(groups)
    guide.log_scale.copy_(-0.5 * precision.log())
    return guide


class ProfiledVariances(nn.Module):
    """max_S of the ELBO: variational Laplace whose variances are not learned but set, every few steps.

    A loss module around that of `VariationalLaplaceELBO()(model, guide)`, for `bayesnn.fit.fit` and any optimiser. Each
    `every` calls make a pass over the data for `fit_variances`; the means alone are trained. At fixed variances the
    gradient in the means is that of the profiled objective, by the envelope theorem; between two passes it is as old
    as the variances are.

    Args:
        loss: whose guide is a `MeanField` or a `SharedVariance`; its `log_scale` leaves training.
        loader: the training data, each example once.
        every: calls between passes; an epoch's number of batches makes one pass an epoch.
        fisher: as in `fit_variances`.

    Raises:
        ValueError: as `fit_variances`; fewer than one call.
        TypeError: as `fit_variances`.
    """

    calls: Tensor

    def __init__(self, loss: VariationalLaplaceLoss, loader: Loader, *, every: int, fisher: Fisher = exact) -> None:
        super().__init__()
        _checked(loss.guide)
        if every < 1:
            raise ValueError(f"ProfiledVariances: at least one call between passes is needed, not {every}")
        self.loss, self.every = loss, every
        self._data = (loader, fisher)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        loss.guide.log_scale.requires_grad_(False)

    @property
    def model(self) -> Any:
        """The model, whose size `fit` compares with the data's."""
        return self.loss.model

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """-ELBO at the present variances."""
        if int(self.calls) % self.every == 0:
            loader, fisher = self._data
            fit_variances(self.loss.guide, loader, kl_weight=self.loss.elbo.kl_weight, fisher=fisher)
        self.calls += 1
        return self.loss(*args, **kwargs)


def faster_variances(lr: float, multiplier: float = 10.0) -> Callable[[str, nn.Parameter], dict[str, float]]:
    """Groups for `fit(groups=...)`: a learning rate `multiplier` times as large for the variances of a guide.

    Variances learn slowly under the rate that suits means, and mean-field results are often those of variances that
    have not converged. Parameters of variances are known by the end of their names: `scale`, `log_scale`, `scale_tril`,
    `cov_factor` and the like. Scales of the model itself (a learned noise) keep the ordinary rate.

    Args:
        lr: the ordinary learning rate.
        multiplier: at least 1.

    Raises:
        ValueError: a rate that is not positive, or a multiplier below 1.

    >>> groups = faster_variances(1e-3, multiplier=20)
    >>> groups("guide.log_scale", nn.Parameter(torch.zeros(1))), groups("guide.loc", nn.Parameter(torch.zeros(1)))
    ({'lr': 0.02}, {})
    """
    if not lr > 0:
        raise ValueError(f"faster_variances: the learning rate must be positive, not {lr}")
    if not multiplier >= 1:
        raise ValueError(f"faster_variances: the multiplier must be at least 1, not {multiplier}")

    def groups(name: str, parameter: nn.Parameter) -> dict[str, float]:
        parts = name.split(".")
        of_guide = "model" not in parts[:-1]
        return {"lr": lr * multiplier} if of_guide and parts[-1].endswith(SUFFIXES) else {}

    return groups


def _checked(guide: Any) -> BNN:
    if not isinstance(guide, (MeanField, SharedVariance)):
        raise TypeError(f"fit_variances: the guide must be a MeanField or a SharedVariance, not {type(guide).__name__}")
    model: Any = guide.model
    if not isinstance(model, BNN):
        raise TypeError("fit_variances: the Fisher information of all data needs a BNN as the guide's model")
    return model
