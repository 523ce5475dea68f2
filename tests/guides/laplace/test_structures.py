"""Kronecker and diagonal Laplace approximations against dense matrices: curvature, evidence,
draws, predictions.
"""

import copy
import io
import math
from functools import partial
from itertools import pairwise
from typing import Any

import oracle
import pyro
import pytest
import torch
from conftest import Untouched
from laplace_problems import TARGETS, log_joint
from nets import NETS, mlp
from pyro import distributions as dist
from statistical import assert_mean
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.functional import memory
from bayesnn.guides import Diagonal, Full, Kronecker, Laplace
from bayesnn.guides.fisher import EmpiricalFisher, MonteCarloFisher

STRUCTURES = {"full": Full, "kronecker": Kronecker, "diagonal": Diagonal}
every_structure = pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)
X = torch.randn(7, 3, dtype=torch.double, generator=torch.Generator().manual_seed(0))


def double(kind: str) -> tuple[Any, Any]:
    net, x = NETS[kind]()
    return net.double(), pytree.tree_map_only(Tensor, lambda t: t.double() if t.is_floating_point() else t, x)


def classification(prior: Any = None) -> tuple[BNN, Tensor]:
    net = mlp(outputs=3).double()
    model = BNN(net, subset.everything(net), prior or priors.normal(0.7), likelihoods.categorical)
    return model, TARGETS["categorical"]()


def blocks(model: BNN, x: Any) -> list[Tensor]:
    """The exact Gauss-Newton matrix of every block."""
    H = oracle.ggn(model.outputs, model.values(), x, model.likelihood.fisher)  # type: ignore[attr-defined]
    sizes = [shape.numel() for shape in model.sites.values()]
    starts = torch.tensor([0, *sizes]).cumsum(0).tolist()
    return [H[a:b, a:b] for a, b in pairwise(starts)]


@pytest.mark.parametrize("which", ["everything", "random"])
@pytest.mark.parametrize("kind", NETS)
def test_the_diagonal_is_that_of_the_dense_matrix(kind: str, which: str, untouched: Untouched) -> None:
    net, x = double(kind)
    chosen = subset.everything(net) if which == "everything" else subset.random(net, 8)
    model = BNN(net, chosen, priors.fan_in(net), likelihoods.categorical)
    y = torch.tensor([0, 1, 1])
    with untouched(net):
        guide = Laplace(model, structure=Diagonal).fit([(x, y)])
        outputs = guide.output_distribution(x)
    H = oracle.ggn(model.outputs, model.values(), x, likelihoods.categorical.fisher)
    variances = 1 / (H.diagonal() + guide.fitted.prior_precision)
    torch.testing.assert_close(guide.covariance, torch.diag(variances))
    J = oracle.jacobian(model.outputs, model.values(), x)
    torch.testing.assert_close(outputs.covariance_matrix, J @ torch.diag(variances) @ J.mT)


class OnePosition(nn.Module):
    """An embedding of one word, an attention of one, a convolution that sees
    its whole input at once.
    """

    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        self.words = nn.Embedding(5, 4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.conv = nn.Conv2d(4, 6, (1, 1), groups=groups)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 3)
        nn.init.normal_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        h = self.words(x)
        h = self.attention(h, h, h, need_weights=False)[0]
        h = self.conv(h.mT.unsqueeze(-1)).relu_()
        return self.head(self.norm(h).flatten(1))


def test_kronecker_factors_are_exact_for_one_example_with_one_position() -> None:
    net = OnePosition().double().eval()
    x = torch.tensor([[3]])
    model = BNN(net, subset.everything(net), priors.normal(0.5), likelihoods.categorical)
    guide = Laplace(model, structure=Kronecker).fit([(x, torch.tensor([1]))])
    expected = [torch.linalg.inv(H + torch.eye(len(H)) / 0.25) for H in blocks(model, x)]
    position = 0
    for site, block in zip(model.sites, expected, strict=True):
        found = guide.covariance[position : position + len(block), position : position + len(block)]
        position += len(block)
        torch.testing.assert_close(found, block, msg=lambda text, site=site: f"{site}: {text}")


def test_groups_of_a_convolution_are_independent() -> None:
    net = OnePosition(groups=2).double().eval()
    x = torch.tensor([[3]])
    model = BNN(net, subset.named(net, "conv.weight"), priors.normal(0.5), likelihoods.categorical)
    guide = Laplace(model, structure=Kronecker).fit([(x, torch.tensor([1]))])
    (H,) = blocks(model, x)
    apart = torch.block_diag(H[:6, :6], H[6:, 6:])
    assert not torch.allclose(H, apart)
    torch.testing.assert_close(guide.covariance, torch.linalg.inv(apart + 4 * torch.eye(12)))


def kronecker_by_hand(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Sums of products, one example, class and position after the other, for
    conv - tanh - flatten - linear.
    """
    conv, linear = net[0], net[3]
    patches = nn.functional.unfold(x, conv.kernel_size).mT  # [batch, position, in]
    found: dict[str, Tensor] = {"A0": 0, "B0": 0, "A3": 0, "B3": 0, "b0": 0}  # type: ignore[dict-item]
    for example in range(len(x)):
        s0 = conv(x[example : example + 1]).detach().requires_grad_()
        a3 = s0.tanh().flatten(1)
        s3 = linear(a3)
        L = torch.linalg.cholesky(likelihoods.categorical.fisher(s3.detach())[0] + 1e-14 * torch.eye(3))
        found["A3"] = found["A3"] + a3.detach().T @ a3.detach()
        found["B3"] = found["B3"] + L @ L.T
        for column in range(3):
            (g,) = torch.autograd.grad(s3, s0, L[:, column].unsqueeze(0), retain_graph=True)
            g = g[0].flatten(1)  # [out, position]
            found["b0"] = found["b0"] + torch.outer(g.sum(1), g.sum(1))
            for position in range(g.shape[1]):
                found["B0"] = found["B0"] + torch.outer(g[:, position], g[:, position])
        for position in range(patches.shape[1]):
            found["A0"] = found["A0"] + torch.outer(patches[example, position], patches[example, position])
    count = {"0": len(x) * patches.shape[1], "3": len(x)}
    H = {f"{layer}.weight": torch.kron(found[f"B{layer}"], found[f"A{layer}"]) / count[layer] for layer in "03"}
    return {"0.weight": H["0.weight"], "0.bias": found["b0"], "3.weight": H["3.weight"], "3.bias": found["B3"]}


def test_kronecker_factors_are_sums_over_examples_and_positions() -> None:
    net = nn.Sequential(nn.Conv2d(2, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)).double()
    x, y = torch.randn(5, 2, 3, 4, dtype=torch.double), torch.tensor([0, 1, 2, 2, 1])
    model = BNN(net, subset.everything(net), priors.normal(0.5), likelihoods.categorical)
    guide = Laplace(model, structure=Kronecker).fit([(x[:2], y[:2]), (x[2:], y[2:])])
    expected = [torch.linalg.inv(H + 4 * torch.eye(len(H))) for H in kronecker_by_hand(net, x).values()]
    torch.testing.assert_close(guide.covariance, torch.block_diag(*expected))


@every_structure
@pytest.mark.parametrize("kind", ["mlp", "conv", "tied", "embedding", "encoder", "batch_norm"])
def test_predictions_are_those_of_the_dense_covariance(kind: str, structure: Any) -> None:
    net, x = double(kind)
    model = BNN(net, subset.everything(net), priors.normal(0.9), likelihoods.categorical)
    guide = Laplace(model, structure=structure).fit([(x, torch.tensor([0, 1, 1]))])
    J = oracle.jacobian(model.outputs, model.values(), x)
    expected = J @ guide.covariance @ J.mT
    torch.testing.assert_close(guide.output_distribution(x).covariance_matrix, expected)
    marginal = guide.output_distribution(x, diagonal=True)
    torch.testing.assert_close(marginal.variance, expected.diagonal(dim1=-2, dim2=-1))
    torch.testing.assert_close(marginal.mean, net(**x) if isinstance(x, dict) else net(x))


@every_structure
def test_the_evidence_is_that_of_the_dense_covariance(structure: Any) -> None:
    model, y = classification()
    guide = Laplace(model, structure=structure).fit([(X[:3], y[:3]), (X[3:], y[3:])])
    for factor in (0.1, 1.0, 5.0):
        anew = Laplace(model.with_prior(priors.rescaled(model.prior, factor**-0.5)), structure=structure)
        anew.fit([(X, y)])
        k = len(anew.loc)
        expected = log_joint(anew.model, model.values(), X, y) + 0.5 * (
            k * math.log(2 * math.pi) + anew.covariance.logdet()
        )
        torch.testing.assert_close(guide.log_evidence(factor), expected, rtol=1e-9, atol=0)


@every_structure
def test_draws_have_the_stated_covariance_and_density(structure: Any) -> None:
    model, y = classification()
    guide = Laplace(model, structure=structure).fit([(X, y)])
    with pyro.plate("draws", 20_000), torch.no_grad():
        trace = pyro.poutine.trace(guide).get_trace()
    values = {site: trace.nodes[site]["value"] for site in model.sites}
    flat = torch.cat([value.reshape(20_000, -1) for value in values.values()], 1)
    assert_mean(flat, guide.loc)
    centred = flat - guide.loc
    assert_mean(centred.unsqueeze(2) * centred.unsqueeze(1), guide.covariance)
    trace.compute_log_prob(lambda name, site: name != "_laplace" or structure is Full)
    own = sum(
        trace.nodes[name]["log_prob"].reshape(-1) for name in trace.stochastic_nodes if "log_prob" in trace.nodes[name]
    )
    dense = dist.MultivariateNormal(guide.loc, guide.covariance)
    torch.testing.assert_close(own, dense.log_prob(flat))


@pytest.mark.parametrize("kind", ["conv", "embedding"])
def test_a_blocks_marginal_variances(kind: str) -> None:
    net, x = double(kind)
    model = BNN(net, subset.everything(net), priors.normal(0.9), likelihoods.categorical)
    guide = Laplace(model, structure=Kronecker).fit([(x, torch.tensor([0, 1, 1]))])
    loc = dict(zip(model.subset.names, model.values().values(), strict=True))
    variances = [d.variance.flatten() for d in guide.posterior.distributions(loc).values()]
    torch.testing.assert_close(torch.cat(variances), guide.covariance.diagonal())


@every_structure
def test_update_equals_one_fit_to_all_data(structure: Any) -> None:
    model, y = classification()
    whole = Laplace(model, structure=structure).fit([(X, y)])
    guide = Laplace(model, structure=structure).fit([(X[:3], y[:3])])
    first = guide.covariance.clone()
    with pytest.raises(ValueError, match="x is not finite"):
        guide.update([(X[3:5], y[3:5]), (X[5:] / 0, y[5:])])
    guide.update([(X[3:], y[3:])])
    assert guide.fitted.curvature.rows.net is model.net
    assert not torch.allclose(guide.covariance, first)
    torch.testing.assert_close(guide.covariance, whole.covariance)
    torch.testing.assert_close(guide.log_evidence(), whole.log_evidence())


@every_structure
def test_a_state_serves_an_equal_guide_and_no_other(structure: Any) -> None:
    model, y = classification()
    guide = Laplace(model, structure=structure).fit([(X, y)])
    buffer = io.BytesIO()
    torch.save(guide.state_dict(), buffer)
    buffer.seek(0)
    other = Laplace(model, structure=structure)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(other.covariance, guide.covariance)
    assert other.log_evidence() == guide.log_evidence()
    other.update([(X, y)])
    torch.testing.assert_close(other.covariance, guide.update([(X, y)]).covariance)
    inside = nn.ModuleDict({"guide": Laplace(model, structure=structure)})
    inside.load_state_dict({f"guide.{name}": value for name, value in guide.state_dict().items()})
    assert torch.equal(inside["guide"].covariance, guide.covariance)
    wrong = Kronecker if structure is not Kronecker else Diagonal
    with pytest.raises(ValueError, match=f"this state has the structure {structure.__name__}; use Laplace"):
        Laplace(model, structure=wrong).load_state_dict(guide.state_dict())


def test_a_state_of_a_network_that_was_trained_on_is_refused() -> None:
    net = mlp(outputs=3).double()
    model = BNN(net, subset.last_layer(net), priors.normal(1.0), likelihoods.categorical)
    guide = Laplace(model).fit([(X, TARGETS["categorical"]())])
    trained = copy.deepcopy(net)
    with torch.no_grad():
        trained[0].weight += 0.01
    other = BNN(trained, subset.last_layer(trained), priors.normal(1.0), likelihoods.categorical)
    with pytest.raises(ValueError, match="around other fixed weights: the network was trained further"):
        Laplace(other).load_state_dict(guide.state_dict())


def test_monte_carlo_fisher_is_unbiased() -> None:
    model, y = classification()
    exact = Laplace(model, structure=Diagonal).fit([(X, y)]).fitted.curvature
    kind = partial(Laplace, model, structure=Diagonal, fisher=MonteCarloFisher(5))
    draws = [kind().fit([(X, y)]).fitted.curvature for _ in range(300)]
    assert_mean(torch.stack([one.diagonal for one in draws]), exact.diagonal)


def test_the_empirical_fisher_is_the_sum_of_squared_gradients() -> None:
    model, y = classification()
    found = Laplace(model, fisher=EmpiricalFisher()).fit([(X, y)]).fitted.curvature.matrix
    expected = torch.zeros_like(found)
    for i in range(len(X)):
        values = {site: value.requires_grad_() for site, value in model.values().items()}
        log_prob = likelihoods.categorical(model.outputs(values, X[i : i + 1])).log_prob(y[i : i + 1]).sum()
        gradient = oracle.flat(dict(zip(values, torch.autograd.grad(log_prob, list(values.values())), strict=True)))
        expected += torch.outer(gradient, gradient)
    torch.testing.assert_close(found, expected)


FAMILIES: dict[str, tuple[Any, Any]] = {
    "heteroscedastic": (likelihoods.heteroscedastic, lambda: torch.randn(7, 2, dtype=torch.double)),
    "student_t": (likelihoods.student_t(4.0, 0.5), lambda: torch.randn(7, 4, dtype=torch.double)),
    "negative_binomial": (likelihoods.negative_binomial(2.0), lambda: torch.randint(0, 5, (7, 4)).double()),
    "poisson": (likelihoods.poisson, lambda: torch.randint(0, 5, (7, 4)).double()),
}


@every_structure
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family: str, structure: Any) -> None:
    likelihood, targets = FAMILIES[family]
    net = mlp(outputs=4).double()
    model = BNN(net, subset.everything(net), priors.normal(0.7), likelihood)
    guide = Laplace(model, structure=structure).fit([(X, targets())])
    H = oracle.ggn(model.outputs, model.values(), X, likelihood.fisher)
    if structure is not Kronecker:
        H = H if structure is Full else torch.diag(H.diagonal())
        torch.testing.assert_close(guide.covariance, torch.linalg.inv(H + torch.eye(len(H)) / 0.49))
    assert guide.output_distribution(X).batch_shape == (7,)


def test_maps_of_pixels() -> None:
    """Exact where a map is small; otherwise by draws, whose number does not grow with the map."""
    net = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Tanh(), nn.Conv2d(2, 3, 1)).double()
    x, y = torch.randn(2, 1, 3, 3, dtype=torch.double), torch.randint(0, 3, (2, 2, 2))
    model = BNN(net, subset.everything(net), priors.normal(0.7), likelihoods.pixelwise_categorical)
    guide = Laplace(model).fit([(x, y)])
    H = torch.zeros(len(guide.loc), len(guide.loc), dtype=torch.double)
    J = torch.autograd.functional.jacobian(
        lambda vector: model.outputs(oracle.unflat(vector, model.values()), x), oracle.flat(model.values())
    )  # [batch, class, height, width, param]
    L = likelihoods.categorical.fisher(net(x).detach().movedim(1, -1))
    H = torch.einsum("nchwp,nhwcd,ndhwq->pq", J, L, J)
    torch.testing.assert_close(guide.covariance, torch.linalg.inv(H + torch.eye(len(H)) / 0.49))
    for structure in (Kronecker, Diagonal):
        drawn = Laplace(model, structure=structure, fisher=MonteCarloFisher(3)).fit([(x, y)])
        assert drawn.output_distribution(x).event_shape == (12,)


def test_what_kronecker_refuses() -> None:
    net, x = NETS["lstm"]()
    model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.categorical)
    guide = Laplace(model, structure=Kronecker)
    with pytest.raises(ValueError, match=r"no Kronecker factor for 'lstm.weight_ih_l0': it goes.*'lstm'.*use Diag"):
        guide.fit([(x, torch.tensor([0, 1, 1]))])
    net = mlp()
    model = BNN(net, subset.random(net, 5), priors.normal(1.0), likelihoods.categorical)
    with pytest.raises(ValueError, match=r"only some entries of .* are random, which have no Kronecker factors"):
        Laplace(model, structure=Kronecker).fit([(torch.randn(4, 3), torch.tensor([0, 1, 1, 0]))])
    scales = {name: torch.rand_like(p) + 0.1 for name, p in net.named_parameters()}
    prior = priors.rescaled(priors.normal(1.0), scales)
    model = BNN(net, subset.everything(net), prior, likelihoods.categorical)
    guide = Laplace(model, structure=Kronecker).fit([(torch.randn(4, 3), torch.tensor([0, 1, 1, 0]))])
    with pytest.raises(ValueError, match=r"the prior of '0\.weight' has several precisions"):
        guide()


def test_only_a_full_covariance_has_a_root() -> None:
    model, y = classification()
    with pytest.raises(TypeError, match="Diagonal has no scale_tril; use covariance"):
        _ = Laplace(model, structure=Diagonal).fit([(X, y)]).scale_tril


def test_what_does_not_fit_is_refused_with_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    model, y = classification()
    guide = Laplace(model, structure=Kronecker).fit([(X, y)])
    monkeypatch.setattr(memory, "available", lambda device: 100)
    with pytest.raises(MemoryError, match=r"the set of all factors, .* of it for '0\.weight'.*use Diagonal"):
        Laplace(model, structure=Kronecker).fit([(X, y)])
    with pytest.raises(MemoryError, match="the covariance of 31 weights as one matrix needs"):
        _ = guide.covariance
    with pytest.raises(MemoryError, match=r"the Fisher information of 7 examples in 3 outputs needs.*MonteCarloFisher"):
        Laplace(model, structure=Diagonal).fit([(X, y)])
    Laplace(model, structure=Diagonal, fisher=MonteCarloFisher()).fit([(X, y)])
