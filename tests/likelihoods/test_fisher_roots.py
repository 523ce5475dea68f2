"""Roots of the Fisher information in closed form: R R^T = L, against the pivoted root, certain
softmax included.
"""

from typing import Any

import pytest
import torch
from pyro import distributions as dist
from torch import Tensor

from bayesnn import likelihoods
from bayesnn.functional import semidefinite_root
from bayesnn.guides.fisher import ExactFisher
from bayesnn.likelihoods import HasFisherRoot
from bayesnn.likelihoods.classes import Categorical
from bayesnn.likelihoods.softmax import softmax_fisher, softmax_fisher_root

# with the shape of the outputs and the rank of L
FAMILIES: dict[str, tuple[Any, tuple[int, ...], int]] = {
    "categorical": (likelihoods.categorical, (6, 10), 9),
    "one class": (likelihoods.categorical, (6, 1), 0),
    "pixelwise": (likelihoods.pixelwise_categorical, (3, 4, 2, 3), 18),
    "bernoulli": (likelihoods.bernoulli, (6, 3), 3),
    "normal": (likelihoods.normal(torch.tensor([0.5, 2.0, 7.0])), (6, 3), 3),
    "heteroscedastic": (likelihoods.heteroscedastic, (6, 4), 4),
    "student_t": (likelihoods.student_t(4.0, 0.3), (6, 3), 3),
    "poisson": (likelihoods.poisson, (6, 3), 3),
    "negative_binomial": (likelihoods.negative_binomial(1.5), (6, 3), 3),
}


def product(root: Tensor) -> Tensor:
    return root @ root.mT


@pytest.mark.parametrize("family", FAMILIES)
def test_the_root_is_a_root_with_as_few_columns_as_there_are(family: str) -> None:
    likelihood, shape, rank = FAMILIES[family]
    outputs = 2 * torch.randn(shape, dtype=torch.double)
    fisher = likelihood.fisher(outputs)
    assert isinstance(likelihood, HasFisherRoot)
    root = likelihood.fisher_root(outputs)
    assert root.shape == (len(outputs), outputs[0].numel(), rank)
    torch.testing.assert_close(product(root), fisher, rtol=1e-12, atol=1e-14)
    pivoted = semidefinite_root(fisher)
    assert pivoted.shape[-1] == rank
    torch.testing.assert_close(product(root), product(pivoted), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(ExactFisher().roots(likelihood, outputs), root)


def test_the_root_of_a_softmax_is_its_cholesky_factor() -> None:
    logits = torch.randn(4, 5, dtype=torch.double)
    leading = torch.linalg.cholesky(softmax_fisher(logits)[:, :-1, :-1])
    torch.testing.assert_close(softmax_fisher_root(logits)[:, :-1], leading, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("place", [0, 2, 4])
@pytest.mark.parametrize("gap", [12.0, 30.0, 80.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.double, 1e-13), (torch.float, 2e-5)])
def test_a_certain_softmax_keeps_its_digits(gap: float, place: int, dtype: torch.dtype, tolerance: float) -> None:
    """p = 1 up to rounding at the first, a middle and the last class: relative
    to sqrt(L_ii L_jj), some exp(-gap).
    """
    logits = torch.tensor([0.3, -1.0, 0.7, 0.0, -0.4])
    logits[place] += gap
    root = softmax_fisher_root(logits.to(dtype)).double()
    exact = softmax_fisher_root(logits.double())
    torch.testing.assert_close(root, exact, rtol=tolerance, atol=torch.finfo(dtype).tiny)
    fisher = softmax_fisher(logits.double())
    deviations = fisher.diagonal().sqrt()
    assert (deviations > 0).all()
    errors = (product(root) - fisher) / torch.outer(deviations, deviations)
    assert errors.abs().max() < tolerance
    # the null direction: equal shifts of all logits
    assert (root.sum(0).abs() <= tolerance * root.abs().amax(0)).all()


def test_classes_without_probability() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, 1.0, -torch.inf, -torch.inf], [200.0, -200.0, 0.0, -1e30, -torch.inf]])
    root = softmax_fisher_root(logits)
    assert root.isfinite().all()
    torch.testing.assert_close(product(root), softmax_fisher(logits))


class Tempered(Categorical):
    """A user's sub-class with another Fisher information, and no root of that."""

    def fisher(self, outputs: Tensor) -> Tensor:
        return 0.25 * super().fisher(outputs)


class Own:
    """A user's likelihood that knows its Fisher information alone: labels, the
    first two classes as one.
    """

    def __call__(self, outputs: Tensor) -> dist.TorchDistribution:
        return dist.Categorical(logits=outputs)

    def fisher(self, outputs: Tensor) -> Tensor:
        joined = outputs.new_ones(outputs.shape[-1], 1)
        return likelihoods.categorical.fisher(outputs) + joined @ joined.T


@pytest.mark.parametrize("likelihood", [Tempered(), Own()])
def test_fisher_alone_is_enough(likelihood: Any) -> None:
    outputs = torch.randn(5, 4, dtype=torch.double)
    fisher = likelihood.fisher(outputs)
    torch.testing.assert_close(product(ExactFisher().roots(likelihood, outputs)), fisher, rtol=1e-12, atol=1e-13)


def test_a_bernoulli_that_is_certain() -> None:
    """p (1 - p) has no digits where p is 1 up to rounding."""
    outputs = torch.tensor([[-40.0, 40.0]])
    deviation = likelihoods.bernoulli.score_deviation(outputs)
    torch.testing.assert_close(deviation, torch.full((1, 2), -20.0).exp(), rtol=1e-5, atol=0)
