"""The Laplace guide where the answer is known: conjugate and concave models,
and the dense oracle.
"""

from itertools import pairwise

import oracle
import pyro
import pytest
import torch
from conftest import Untouched
from laplace_problems import LIKELIHOODS, TARGETS, golden, hessian, mode
from nets import NETS, mlp
from pyro import distributions as dist
from pyro.infer.autoguide import AutoLaplaceApproximation, init_to_value
from statistical import assert_mean
from torch import Tensor, nn

from bayesnn import BNN, learned, likelihoods, priors, subset
from bayesnn.guides import Laplace
from bayesnn.subset import Subset


def test_golden_values() -> None:
    model, x, y = golden()
    guide = Laplace(model, mode(model, x, y)).fit([(x, y)])
    assert guide.log_evidence().item() == pytest.approx(-4.3734628802, rel=1e-8)
    outputs = guide.output_distribution(torch.tensor([[1.0, 1.5]], dtype=torch.double))
    assert outputs.mean.item() == pytest.approx(1.7632653061, rel=1e-8)
    assert outputs.variance.item() + 0.25 == pytest.approx(0.3858754028, rel=1e-8)


def test_mackays_fixed_point_is_stationary() -> None:
    d = 2.0188583155
    model, x, y = golden(d)
    guide = Laplace(model, mode(model, x, y)).fit([(x, y)])
    assert (2 - d * guide.covariance.trace()) / guide.loc.square().sum() == pytest.approx(d, rel=1e-8)
    best = guide.maximise_evidence()
    assert best.fitted.prior_precision.tolist() == pytest.approx([d, d], rel=1e-8)
    assert best.log_evidence() == pytest.approx(guide.log_evidence().item(), rel=1e-12)


def test_mode_and_evidence_in_turns_find_the_fixed_point() -> None:
    model, x, y = golden()
    for _ in range(60):
        model = Laplace(model, mode(model, x, y, steps=2)).fit([(x, y)]).maximise_evidence().model
    guide = Laplace(model, mode(model, x, y)).fit([(x, y)])
    assert guide.fitted.prior_precision[0].item() == pytest.approx(2.0188583155, rel=1e-8)


@pytest.mark.parametrize("bias", [True, False])
def test_exact_for_linear_regression_with_several_outputs(bias: bool) -> None:
    """Posterior, evidence and predictive are those of the joint normal
    distribution of weights and targets.
    """
    net = nn.Linear(3, 2, bias=bias).double()
    noise = torch.tensor([0.3, 0.8], dtype=torch.double)
    prior = priors.around(net, 0.6)
    model = BNN(net, subset.everything(net), prior, likelihoods.normal(noise))
    x, y = torch.randn(6, 3, dtype=torch.double), torch.randn(6, 2, dtype=torch.double)
    guide = Laplace(model, mode(model, x, y)).fit([(x, y)])
    values = model.values()
    A = oracle.jacobian(model.outputs, values, x).flatten(0, 1)  # [(example, output), param]
    R = torch.diag(noise.square().repeat(6))
    prior_mean = oracle.flat({site: prior.centre[site] for site in values}).double()
    joint = dist.MultivariateNormal(A @ prior_mean, 0.36 * A @ A.T + R)
    covariance = torch.linalg.inv(A.T @ torch.linalg.inv(R) @ A + torch.eye(len(prior_mean)) / 0.36)
    mean = covariance @ (A.T @ torch.linalg.inv(R) @ y.reshape(-1) + prior_mean / 0.36)
    torch.testing.assert_close(guide.covariance, covariance)
    torch.testing.assert_close(guide.loc, mean)
    torch.testing.assert_close(guide.log_evidence(), joint.log_prob(y.reshape(-1)))
    new = torch.randn(4, 3, dtype=torch.double)
    J = oracle.jacobian(model.outputs, values, new)
    outputs = guide.output_distribution(new)
    torch.testing.assert_close(outputs.mean, model.outputs(oracle.unflat(mean, values), new))
    torch.testing.assert_close(outputs.covariance_matrix, J @ covariance @ J.mT)


def partial_subsets(net: nn.Module) -> dict[str, Subset]:
    last = subset.last_layer(net)
    chosen = torch.tensor([1, 2, 7])
    return {
        "all": last,
        "weight": subset.named(net, "2.weight"),
        "bias": subset.named(net, "2.bias"),
        "some of both": subset.random(net, 8, within=last),
        "some and the bias": Subset(last.shape, {"2.weight": chosen, "2.bias": None}),
        "the weight and one bias": Subset(last.shape, {"2.weight": None, "2.bias": chosen[:1]}),
        "one": Subset(last.shape, {"2.weight": chosen[:1]}),
    }


@pytest.mark.parametrize("family", TARGETS)
@pytest.mark.parametrize("which", partial_subsets(mlp(outputs=3)))
def test_gauss_newton_is_the_hessian_on_a_linear_last_layer(which: str, family: str) -> None:
    net = mlp(outputs=3).double()
    model = BNN(net, partial_subsets(net)[which], priors.normal(0.7), LIKELIHOODS[family])
    x, y = torch.randn(7, 3, dtype=torch.double), TARGETS[family]()
    guide = Laplace(model).fit([(x[:4], y[:4]), (x[4:], y[4:])])
    torch.testing.assert_close(guide.covariance, torch.linalg.inv(hessian(model, model.values(), x, y)))


@pytest.mark.parametrize("family", TARGETS)
def test_equals_pyros_laplace_where_both_apply(family: str) -> None:
    net = nn.Linear(3, 3).double()
    model = BNN(net, subset.everything(net), priors.normal(0.8), LIKELIHOODS[family])
    x, y = torch.randn(7, 3, dtype=torch.double), TARGETS[family]()
    values = mode(model, x, y)
    pyros = AutoLaplaceApproximation(model, init_loc_fn=init_to_value(values=values))
    pyros(x, y)
    with torch.no_grad():
        pyros.loc.copy_(oracle.flat(values))
    theirs = pyros.laplace_approximation(x, y).get_posterior()
    ours = Laplace(model, values).fit([(x, y)])
    torch.testing.assert_close(ours.loc, theirs.mean)
    torch.testing.assert_close(ours.covariance, theirs.covariance_matrix)


@pytest.mark.parametrize("kind", NETS)
def test_all_weights_equal_the_dense_oracle(kind: str, untouched: Untouched) -> None:
    net, x = NETS[kind]()
    net = net.double()
    x = torch.utils._pytree.tree_map_only(Tensor, lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, x)
    model = BNN(net, subset.everything(net), priors.normal(0.9), likelihoods.categorical)
    with untouched(net):
        guide = Laplace(model).fit([(x, torch.tensor([0, 1, 1]))])
        outputs = guide.output_distribution(x)
    values = model.values()
    H = oracle.ggn(model.outputs, values, x, likelihoods.categorical.fisher)
    covariance = torch.linalg.inv(H + torch.eye(len(H)) / 0.81)
    torch.testing.assert_close(guide.covariance, covariance)
    J = oracle.jacobian(model.outputs, values, x)
    torch.testing.assert_close(outputs.covariance_matrix, J @ covariance @ J.mT)
    torch.testing.assert_close(outputs.mean, model.outputs(values, x))


def vague(name: str, value: Tensor) -> dist.TorchDistribution:
    """A user's prior, with a scale for each block and independent axes of its own."""
    scale = 0.5 if name.endswith("bias") else 2.0
    return dist.Normal(torch.full_like(value, 0.1), scale).to_event(1)


PRIORS = {
    "fan-in": lambda net: priors.fan_in(net),
    "around": lambda net: priors.around({name: p + 0.3 for name, p in net.named_parameters()}, 0.4),
    "learned": lambda net: priors.normal(learned(0.3)),
    "rescaled": lambda net: priors.rescaled(priors.fan_in(net), 0.7),
    "a user's": lambda net: vague,
}


@pytest.mark.parametrize("kind", PRIORS)
def test_every_normal_prior_counts_as_it_should(kind: str) -> None:
    net = mlp(outputs=3).double()
    model = BNN(net, subset.last_layer(net), PRIORS[kind](net), likelihoods.categorical)
    x, y = torch.randn(7, 3, dtype=torch.double), TARGETS["categorical"]()
    guide = Laplace(model).fit([(x, y)])
    H = hessian(model, model.values(), x, y)
    torch.testing.assert_close(guide.covariance, torch.linalg.inv(H))
    with torch.no_grad():
        expected = (
            poutine_log_joint(model, x, y) + 0.5 * len(H) * torch.log(torch.tensor(2 * torch.pi)) - 0.5 * H.logdet()
        )
    torch.testing.assert_close(guide.log_evidence(), expected)


def poutine_log_joint(model: BNN, x: Tensor, y: Tensor) -> Tensor:
    conditioned = pyro.poutine.condition(model, model.values())
    return pyro.poutine.trace(conditioned).get_trace(x, y).log_prob_sum()


@pytest.mark.parametrize("size", [7, 14])
def test_batches_and_size(size: int) -> None:
    """Any batches give one posterior; a size beyond the examples seen counts
    each of them more often.
    """
    net = mlp(outputs=3).double()
    x, y = torch.randn(7, 3, dtype=torch.double), TARGETS["categorical"]()
    chosen = subset.everything(net)
    model = BNN(net, chosen, priors.normal(0.7), likelihoods.categorical, size=size)
    guide = Laplace(model).fit((x[i:j], y[i:j]) for i, j in pairwise([0, 3, 4, 7]))
    repeated = BNN(net, chosen, priors.normal(0.7), likelihoods.categorical)
    whole = Laplace(repeated).fit([(x, y)] * (size // 7))
    torch.testing.assert_close(guide.covariance, whole.covariance)
    torch.testing.assert_close(guide.log_evidence(), whole.log_evidence())


def small() -> tuple[BNN, Laplace]:
    net = mlp(outputs=3)
    model = BNN(net, subset.random(net, 6), priors.normal(0.7), likelihoods.categorical)
    return model, Laplace(model).fit([(torch.randn(7, 3), TARGETS["categorical"]())])


def test_samples_have_the_stated_mean_and_covariance() -> None:
    model, guide = small()
    with pyro.plate("draws", 20_000):
        values = guide()
    flat = torch.cat([values[site].reshape(20_000, -1) for site in model.sites], 1)
    assert_mean(flat, guide.loc)
    centred = flat - guide.loc
    assert_mean(centred.unsqueeze(2) * centred.unsqueeze(1), guide.covariance)
    lower = guide.scale_tril
    assert (lower.triu(1) == 0).all()
    assert (lower.diagonal() > 0).all()
    # the two orders would be told apart
    assert not torch.allclose(lower.T @ lower, guide.covariance, rtol=1e-2)


def test_order_of_the_hidden_units_does_not_matter() -> None:
    order = torch.tensor([2, 0, 3, 1])
    net, other = mlp(outputs=3).double(), mlp(outputs=3).double()
    with torch.no_grad():
        other[0].weight.copy_(net[0].weight[order])
        other[0].bias.copy_(net[0].bias[order])
        other[2].weight.copy_(net[2].weight[:, order])
        other[2].bias.copy_(net[2].bias)
    x, y = torch.randn(7, 3, dtype=torch.double), TARGETS["categorical"]()
    guides = []
    for one in (net, other):
        model = BNN(one, subset.everything(one), priors.normal(0.7), likelihoods.categorical)
        guides.append(Laplace(model).fit([(x, y)]))
    new = torch.randn(3, 3, dtype=torch.double)
    torch.testing.assert_close(guides[0].log_evidence(), guides[1].log_evidence())
    found = [guide.output_distribution(new).covariance_matrix for guide in guides]
    torch.testing.assert_close(found[0], found[1])


def test_a_subnetwork_has_the_block_of_the_precision_not_of_the_covariance() -> None:
    net = mlp(outputs=3).double()
    x, y = torch.randn(7, 3, dtype=torch.double), TARGETS["categorical"]()

    def covariance(chosen: Subset) -> Tensor:
        model = BNN(net, chosen, priors.normal(0.7), likelihoods.categorical)
        return Laplace(model).fit([(x, y)]).covariance

    everything = subset.everything(net)
    full = covariance(everything)
    position = dict(zip(everything.names, torch.arange(len(full)).split([12, 4, 12, 3]), strict=True))
    for chosen in (subset.random(net, 9), subset.last_layer(net)):
        own = torch.cat([position[n][... if i is None else i] for n, i in chosen.index.items()])
        within = covariance(chosen)
        torch.testing.assert_close(within, torch.linalg.inv(torch.linalg.inv(full)[own][:, own]))
        # ignoring weights shrinks variances
        assert torch.linalg.eigvalsh(full[own][:, own] - within).min() > -1e-12
    torch.testing.assert_close(covariance(subset.random(net, 31)), full)


def test_single_precision_follows_double() -> None:
    """Under a wide prior, where the precision has eigenvalues from 0.1 to 1e4."""
    net = mlp(hidden=16, outputs=3)
    x, y = torch.randn(500, 3), torch.randint(0, 3, (500,))
    new, found = torch.randn(5, 3), {}
    for dtype in (torch.float, torch.double):
        held = net.to(dtype)
        model = BNN(held, subset.everything(held), priors.normal(3.0), likelihoods.categorical)
        guide = Laplace(model).fit([(x.to(dtype), y)])
        assert guide.scale_tril.dtype == dtype
        found[dtype] = (guide.log_evidence(), guide.output_distribution(new.to(dtype)).covariance_matrix)
    torch.testing.assert_close(found[torch.float][0], found[torch.double][0], rtol=1e-5, atol=0)
    torch.testing.assert_close(found[torch.float][1].double(), found[torch.double][1], rtol=1e-2, atol=1e-5)
