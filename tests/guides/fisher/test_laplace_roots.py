"""Every way to the Fisher information in a Laplace approximation: all signs and
labels enumerated.
"""

from itertools import product
from typing import Any

import pytest
import torch
from pyro import distributions as dist
from torch import Tensor, nn

from bayesnn import BNN, learned, likelihoods, priors, subset
from bayesnn.guides import Laplace, MeanField, VariationalLaplaceELBO
from bayesnn.guides.fisher import EmpiricalFisher, ExactFisher, FisherProbes, MonteCarloFisher, signs
from bayesnn.guides.variational_laplace import fit_variances


class Given:
    """In the place of random signs: a vector of them, for as many calls as it lasts."""

    def __init__(self, vector: tuple[float, ...]) -> None:
        self.left = list(vector)

    def __call__(self, like: Tensor) -> Tensor:
        taken, self.left = self.left[: like.numel()], self.left[like.numel() :]
        return torch.tensor(taken).to(like).reshape(like.shape)


class Gamma(nn.Module):
    """A user's likelihood without a rule: y ~ Gamma(2, exp(-f)), of Fisher
    information 2 in every output.
    """

    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        return dist.Gamma(2.0, (-outputs).exp()).to_event(1)

    def fisher(self, outputs: Tensor) -> Tensor:
        return torch.diag_embed(torch.full_like(outputs, 2.0))


FAMILIES: dict[str, tuple[Any, int]] = {
    "categorical": (likelihoods.categorical, 3),
    "bernoulli": (likelihoods.bernoulli, 2),
    "normal, learned": (likelihoods.normal(learned(0.7)), 2),
    "heteroscedastic": (likelihoods.heteroscedastic, 4),
    "student_t, learned": (likelihoods.student_t(learned(4.0), 0.3), 2),
    "poisson": (likelihoods.poisson, 2),
    "negative_binomial": (likelihoods.negative_binomial(1.5), 2),
    "a user's own": (Gamma(), 2),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_probes_have_the_exact_mean(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean of R R^T over all vectors of signs is L: through the
    distribution's parameters, or through a root.
    """
    likelihood, out = FAMILIES[family]
    outputs = torch.randn(1, out, dtype=torch.double)
    total, count = torch.zeros(out, out, dtype=torch.double), 0
    for vector in product([-1.0, 1.0], repeat=out):
        given = iter(vector)
        monkeypatch.setattr(
            signs,
            "random_signs",
            lambda like, given=given: (
                torch.tensor([next(given) for _ in range(like.numel())]).to(like).reshape(like.shape)
            ),
        )
        root = FisherProbes().roots(likelihood, outputs)
        assert root.shape == (1, out, 1)
        total += (root @ root.mT)[0].detach()
        count += 1
    torch.testing.assert_close(total / count, likelihood.fisher(outputs)[0].detach(), rtol=1e-6, atol=1e-8)


def test_probes_of_maps_need_no_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two classes at one pixel, beside the matrix; and a map whose matrix would not fit."""
    outputs = torch.randn(1, 2, 1, 1, dtype=torch.double)
    roots = []
    for vector in product([-1.0, 1.0], repeat=2):
        monkeypatch.setattr(signs, "random_signs", Given(vector))
        roots.append(FisherProbes().roots(likelihoods.pixelwise_categorical, outputs))
    mean = torch.stack([root @ root.mT for root in roots]).mean(0)
    torch.testing.assert_close(mean, likelihoods.pixelwise_categorical.fisher(outputs), rtol=1e-12, atol=1e-14)
    monkeypatch.undo()
    large = torch.zeros(1, 3, 256, 256)
    assert FisherProbes(2).roots(likelihoods.pixelwise_categorical, large).shape == (1, 3 * 256 * 256, 2)


def test_drawn_labels_and_the_data_s_own() -> None:
    outputs = torch.tensor([[0.2, -0.5, 1.0]], dtype=torch.double)
    p = outputs.softmax(-1)
    columns = [
        EmpiricalFisher(9, each=True).roots(likelihoods.categorical, outputs, torch.tensor([k])) for k in range(3)
    ]
    for k, column in enumerate(columns):
        score = torch.eye(3, dtype=torch.double)[k] - p[0]
        torch.testing.assert_close(column, score.reshape(1, 3, 1), rtol=1e-12, atol=1e-14)
    mean = sum(p[0, k] * column @ column.mT for k, column in enumerate(columns))
    torch.testing.assert_close(mean, likelihoods.categorical.fisher(outputs), rtol=1e-12, atol=1e-14)
    drawn = MonteCarloFisher(2).roots(likelihoods.categorical, outputs)
    for one in drawn[0].T:
        assert any(torch.allclose(one * 2**0.5, column[0, :, 0]) for column in columns)


def test_one_object_serves_both_methods() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
    model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.categorical)
    x, y = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    for way in (ExactFisher(), MonteCarloFisher(2), EmpiricalFisher(), FisherProbes()):
        assert Laplace(model, fisher=way).fit([(x, y)]).covariance.isfinite().all()
        assert VariationalLaplaceELBO(way)(model, MeanField(model))(x, y).isfinite()


def test_a_class_in_the_place_of_an_object_is_refused() -> None:
    net = nn.Linear(3, 2)
    model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.categorical)
    with pytest.raises(TypeError, match=r"Laplace: fisher must be MonteCarloFisher\(\), an object"):
        Laplace(model, fisher=MonteCarloFisher)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"VariationalLaplaceELBO: curvature must be an object such as ExactFisher\(\)"):
        VariationalLaplaceELBO(lambda sites: iter(()))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"fit_variances: curvature must be ExactFisher\(\)"):
        fit_variances(MeanField(model), [], curvature=ExactFisher)  # type: ignore[arg-type]
