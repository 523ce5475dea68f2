"""The low-rank structure of the Laplace guide, and the products and eigenpairs
that it is made of.
"""

import logging
from functools import partial
from typing import Any

import oracle
import pyro
import pytest
import torch
from conftest import Untouched
from laplace_problems import TARGETS
from nets import NETS, Squared, mlp
from pyro import poutine
from statistical import assert_mean
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.curvature import JacobianRows, SlowFallback
from bayesnn.curvature.ggn_products import GGNProducts
from bayesnn.guides import Full, Laplace, LowRank
from bayesnn.guides.fisher import MonteCarloFisher
from bayesnn.guides.laplace.lanczos import top_eigenpairs

PRIORS = {
    "normal": lambda net: priors.normal(0.7),
    "fan-in": lambda net: priors.fan_in(net),
    "around": lambda net: priors.around({name: p + 0.3 for name, p in net.named_parameters()}, 0.4),
}
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def problem(examples: int = 4, prior: str = "normal") -> tuple[BNN, Tensor, Tensor]:
    """31 weights and a curvature of rank 2 * examples at most."""
    net = mlp(outputs=3).double()
    model = BNN(net, subset.everything(net), PRIORS[prior](net), likelihoods.categorical)
    return model, torch.randn(examples, 3, dtype=torch.double), TARGETS["categorical"]()[:examples]


def fitted(model: BNN, batches: Any, rank: int = 20, **options: Any) -> Laplace:
    return Laplace(model, structure=partial(LowRank, rank=rank), **options).fit(batches)


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("some", [False, True], ids=["all", "some"])
def test_products_equal_the_dense_oracle(kind: str, some: bool, untouched: Untouched) -> None:
    net, x = NETS[kind]()
    net = net.double()
    x = torch.utils._pytree.tree_map_only(Tensor, lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, x)
    chosen = subset.random(net, 9) if some else subset.everything(net)
    model = BNN(net, chosen, priors.normal(), likelihoods.categorical)
    H = oracle.ggn(model.outputs, model.values(), x, likelihoods.categorical.fisher)
    vectors = torch.randn(3, len(H), dtype=torch.double)
    with untouched(net):
        structure = fitted(model, [(x, torch.tensor([0, 1, 1]))]).fitted.curvature
        assert isinstance(structure, LowRank)
        found = GGNProducts(structure.rows)(x, lambda o, _: torch.linalg.cholesky(lifted(o)), vectors)
    H_lifted = oracle.ggn(model.outputs, model.values(), x, lifted)
    torch.testing.assert_close(found, vectors @ H_lifted)
    V = structure.eigenvectors
    torch.testing.assert_close(V.mT @ (structure.eigenvalues.unsqueeze(-1) * V), H)


def lifted(outputs: Tensor) -> Tensor:
    """A Fisher information without null directions."""
    return likelihoods.categorical.fisher(outputs) + torch.eye(outputs.shape[-1], dtype=outputs.dtype)


def test_rows_stand_in_where_a_layer_cannot_be_differentiated_twice() -> None:
    net = nn.Sequential(nn.Linear(3, 4), Squared(), nn.Linear(4, 2)).double()
    values = dict(net.named_parameters())
    rows = JacobianRows(net, values, dict.fromkeys(values))
    x, asked = torch.randn(5, 3, dtype=torch.double), []

    def roots(outputs: Tensor, examples: slice) -> Tensor:
        asked.extend(range(5)[examples])
        return torch.linalg.cholesky(lifted(outputs))

    model = BNN(net, subset.everything(net), priors.normal(), likelihoods.categorical)
    vectors = torch.randn(2, len(model.subset), dtype=torch.double)
    with pytest.warns(SlowFallback, match="no second derivative"):
        found = GGNProducts(rows)(x, roots, vectors)
    assert asked == list(range(5))  # once
    torch.testing.assert_close(found, vectors @ oracle.ggn(model.outputs, model.values(), x, lifted))
    J = oracle.jacobian(model.outputs, model.values(), x)
    torch.testing.assert_close(GGNProducts(rows).tangents(x, vectors), torch.einsum("bcp,vp->vbc", J, vectors))


def matrix(values: Tensor) -> Tensor:
    basis = torch.linalg.qr(torch.randn(len(values), len(values), dtype=torch.double))[0]
    return basis @ (values.unsqueeze(-1) * basis.mT)


@pytest.mark.parametrize("kind", ["power law", "clusters", "identity", "low rank", "zero"])
def test_eigenpairs(kind: str) -> None:
    spectra = {
        "power law": torch.arange(1, 201).double() ** -1.5,
        "clusters": torch.tensor([5.0] * 30 + [1.0] * 170).double(),
        "identity": torch.ones(200).double(),
        "low rank": torch.tensor([3.0, 2.0, 1e-4] + [0.0] * 197).double(),
        "zero": torch.zeros(200).double(),
    }
    A = matrix(spectra[kind])
    values, vectors = top_eigenpairs(lambda v: v @ A, A, 200, 12, tolerance=1e-7)
    there = spectra[kind][:12][spectra[kind][:12] > 0]
    torch.testing.assert_close(values, there, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(vectors @ vectors.mT, torch.eye(len(there)).double())
    torch.testing.assert_close(vectors @ A, values.unsqueeze(-1) * vectors, rtol=1e-6, atol=1e-6)


def test_eigenpairs_that_do_not_converge_are_told(caplog: pytest.LogCaptureFixture) -> None:
    A = matrix(torch.linspace(1, 1.1, 500).double())
    with caplog.at_level(logging.WARNING):
        values, _ = top_eigenpairs(lambda v: v @ A, A, 500, 3, tolerance=1e-12)
    assert "products leave the eigenpairs with errors" in caplog.text
    assert len(values) == 3


@pytest.mark.parametrize("prior", PRIORS)
def test_equals_full_where_the_rank_suffices(prior: str) -> None:
    model, x, y = problem(prior=prior)
    full = Laplace(model).fit([(x, y)])
    guide = fitted(model, [(x[:1], y[:1]), (x[1:], y[1:])])
    structure = guide.fitted.curvature
    assert isinstance(structure, LowRank)
    assert len(structure.eigenvalues) == 8
    torch.testing.assert_close(guide.covariance, full.covariance, **CLOSE)
    factors = torch.tensor([0.01, 1.0, 7.0])
    torch.testing.assert_close(guide.log_evidence(factors), full.log_evidence(factors), **CLOSE)
    new = torch.randn(5, 3, dtype=torch.double)
    ours, theirs = guide.output_distribution(new), full.output_distribution(new)
    torch.testing.assert_close(ours.covariance_matrix, theirs.covariance_matrix, **CLOSE)
    marginal = guide.output_distribution(new, diagonal=True)
    torch.testing.assert_close(marginal.variance, theirs.variance, **CLOSE)
    q, dense = guide.posterior.joint(guide.loc), full.posterior.joint(full.loc)
    value = torch.randn(2, 31, dtype=torch.double)
    torch.testing.assert_close(q.log_prob(value), dense.log_prob(value), **CLOSE)
    torch.testing.assert_close(q.variance, dense.variance, **CLOSE)


@pytest.mark.parametrize("kind", ["mlp", "conv", "lstm", "attention", "batch_norm"])
@pytest.mark.parametrize("some", [False, True], ids=["all", "some"])
def test_variances_of_many_weights_by_layers(kind: str, some: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = NETS[kind]()
    net, x = net.double(), x.double()
    chosen = subset.random(net, 9) if some else subset.everything(net)
    model = BNN(net, chosen, priors.fan_in(net), likelihoods.categorical)
    guide = fitted(model, [(x, torch.tensor([0, 1, 1]))], rank=2)
    for diagonal in (False, True):
        expected = guide.output_distribution(x, diagonal=diagonal)
        with monkeypatch.context() as patched:
            patched.setattr("bayesnn.guides.laplace.low_rank_posterior.ROWS", 0)
            found = guide.output_distribution(x, diagonal=diagonal)
        torch.testing.assert_close(found.mean, expected.mean, **CLOSE)
        torch.testing.assert_close(found.variance, expected.variance, **CLOSE)
        if not diagonal:
            torch.testing.assert_close(found.covariance_matrix, expected.covariance_matrix, **CLOSE)


@pytest.mark.parametrize("prior", PRIORS)
def test_the_best_rank_for_the_prior(prior: str) -> None:
    """The pairs are the largest of P^-1/2 H P^-1/2: no other matrix of this
    rank is closer to the posterior.
    """
    model, x, y = problem(7, prior)
    guide = Laplace(model, structure=partial(LowRank, rank=3, tolerance=1e-9)).fit([(x, y)])
    structure = guide.fitted.curvature
    assert isinstance(structure, LowRank)
    H = oracle.ggn(model.outputs, model.values(), x, likelihoods.categorical.fisher)
    root = guide.fitted.prior_precision.sqrt()
    values, vectors = torch.linalg.eigh(H / root / root.unsqueeze(-1))
    values, vectors = values.flip(0)[:3], vectors.flip(1)[:, :3].mT
    torch.testing.assert_close(structure.eigenvalues, values)
    found = structure.eigenvectors / root
    torch.testing.assert_close(found * (found * vectors).sum(1, keepdim=True).sign(), vectors)
    torch.testing.assert_close(structure.spectrum(guide.fitted.prior_precision), values.flip(0))
    assert torch.linalg.eigvalsh(guide.covariance - Laplace(model).fit([(x, y)]).covariance).min() > -1e-12


def test_another_prior_afterwards_for_every_weight() -> None:
    model, x, y = problem()
    full, low = Laplace(model).fit([(x, y)]).fitted.curvature, fitted(model, [(x, y)]).fitted.curvature
    assert isinstance(full, Full)
    assert isinstance(low, LowRank)
    precision = torch.rand(31, dtype=torch.double).add(0.1).requires_grad_()
    for scale in (1.0, 3.0):
        ours, theirs = (structure.posterior(precision.detach(), scale) for structure in (low, full))
        torch.testing.assert_close(ours.covariance(), theirs.covariance(), **CLOSE)
    torch.testing.assert_close(low.log_ratio(precision), full.log_ratio(precision), **CLOSE)
    gradients = [torch.autograd.grad(structure.log_ratio(precision), precision)[0] for structure in (low, full)]
    torch.testing.assert_close(*gradients, **CLOSE)


@pytest.mark.parametrize("per", ["network", "block"])
def test_the_same_maximum_of_the_evidence_as_full(per: Any) -> None:
    model, x, y = problem(7)
    best = fitted(model, [(x, y)]).maximise_evidence(per=per)
    expected = Laplace(model).fit([(x, y)]).maximise_evidence(per=per)
    torch.testing.assert_close(best.log_evidence(), expected.log_evidence(), rtol=1e-7, atol=0)
    torch.testing.assert_close(best.covariance, expected.covariance, rtol=1e-3, atol=1e-5)


def test_samples_have_the_stated_mean_and_covariance() -> None:
    model, x, y = problem()
    guide = fitted(model, [(x, y)], rank=3)
    with pyro.plate("draws", 20_000):
        values = guide()
    flat = torch.cat([values[site].reshape(20_000, -1) for site in model.sites], 1)
    assert_mean(flat, guide.loc)
    centred = flat - guide.loc
    assert_mean(centred.unsqueeze(2) * centred.unsqueeze(1), guide.covariance)
    traced = poutine.trace(guide).get_trace()
    value = traced.nodes["_laplace"]["value"]
    dense = torch.distributions.MultivariateNormal(guide.loc, guide.covariance)
    torch.testing.assert_close(traced.log_prob_sum(), dense.log_prob(value))


def test_a_state_dict_comes_back() -> None:
    model, x, y = problem(7)
    guide = fitted(model, [(x, y)], rank=5)
    other = Laplace(model, structure=partial(LowRank, rank=5))
    other.load_state_dict(guide.state_dict())
    torch.testing.assert_close(other.covariance, guide.covariance)
    torch.testing.assert_close(other.log_evidence(), guide.log_evidence())


@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "shuffled"])
def test_drawn_targets_are_the_same_in_every_pass(shuffle: bool) -> None:
    model, x, y = problem()
    loader = DataLoader(TensorDataset(x, y), batch_size=2, shuffle=shuffle)
    torch.manual_seed(3)
    guide = fitted(model, loader, rank=31, fisher=MonteCarloFisher(2))
    torch.manual_seed(3)
    full = Laplace(model, fisher=MonteCarloFisher(2)).fit(loader)
    torch.testing.assert_close(guide.covariance, full.covariance)


def test_single_precision_follows_double() -> None:
    net = mlp(hidden=16, outputs=3)
    x, y = torch.randn(300, 3), torch.randint(0, 3, (300,))
    found = {}
    for dtype in (torch.float, torch.double):
        held = net.to(dtype)
        model = BNN(held, subset.everything(held), priors.normal(3.0), likelihoods.categorical)
        guide = fitted(model, [(x.to(dtype), y)])
        assert guide.posterior.joint(guide.loc).sample().dtype == dtype
        outputs = guide.output_distribution(x[:5].to(dtype), diagonal=True)
        found[dtype] = (guide.log_evidence(), outputs.variance)
    torch.testing.assert_close(found[torch.float][0], found[torch.double][0], rtol=1e-4, atol=0)
    torch.testing.assert_close(found[torch.float][1].double(), found[torch.double][1], rtol=1e-2, atol=1e-4)


def test_what_is_refused() -> None:
    model, x, y = problem()
    with pytest.raises(TypeError, match="a generator can be read only once; give a DataLoader or a list"):
        fitted(model, (batch for batch in [(x, y)]))
    with pytest.raises(ValueError, match="at least 1, not 0"):
        fitted(model, [(x, y)], rank=0)
    guide = fitted(model, [(x, y)])
    with pytest.raises(ValueError, match="further data cannot be added to the eigenpairs"):
        guide.update([(x, y)])
    torch.testing.assert_close(guide.log_evidence(), fitted(model, [(x, y)]).log_evidence())


def test_memory_is_asked_for_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bayesnn.functional.memory.available", lambda device: 0)
    model, x, y = problem()
    with pytest.raises(MemoryError, match=r"LowRank: 51 vectors of 31 weights needs .* choose a lower rank"):
        fitted(model, [(x, y)])
