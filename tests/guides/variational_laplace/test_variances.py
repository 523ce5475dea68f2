"""Variances in closed form, shared, profiled, and learned faster."""

from functools import partial
from typing import Any

import pyro
import pytest
import torch
from nets import mlp
from pyro import distributions as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from variational_laplace_problems import BEST, INIT, NOISE, UNIFORM, X, Y, classifier, linear_bnn, real

from bayesnn import BNN, learned, likelihoods, priors, subset
from bayesnn.fit import fit
from bayesnn.guides import Diagonal, Laplace, MeanField, SharedVariance, VariationalLaplaceELBO, faster_variances
from bayesnn.guides.fisher import ExactFisher, FisherProbes
from bayesnn.guides.mean_field import per_layer, per_network, per_tensor
from bayesnn.guides.variational_laplace import ProfiledVariances, fit_variances

EXACT = ExactFisher()


@pytest.mark.parametrize(("weight", "expected"), [(1.0, (0.08, 0.0465116279)), (0.1, (0.0082987552, 0.0047505938))])
def test_optimal_variances(weight: float, expected: tuple[float, float]) -> None:
    model, x, y = linear_bnn()
    guide = fit_variances(MeanField(model, init=INIT), [(x, y)], kl_weight=weight)
    torch.testing.assert_close(guide.log_scale.exp().detach() ** 2, real(*expected), rtol=0, atol=1e-8)
    loss = VariationalLaplaceELBO(EXACT, kl_weight=weight)(model, guide)
    found = loss(x, y)
    assert torch.autograd.grad(found, guide.log_scale)[0].abs().max() < 1e-12
    if weight == 1:
        assert found.item() == pytest.approx(-BEST, abs=1e-8)


def test_the_uniform_variance() -> None:
    model, x, y = linear_bnn()
    guide = fit_variances(SharedVariance(model, init=INIT), [(x[:2], y[:2]), (x[2:], y[2:])])
    assert guide.log_scale.exp().item() ** 2 == pytest.approx(0.0588235294, abs=1e-8)
    assert VariationalLaplaceELBO(EXACT)(model, guide)(x, y).item() == pytest.approx(-UNIFORM, abs=1e-8)


@pytest.mark.parametrize("over", [per_network, per_layer, per_tensor])
@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_shared_variances_are_stationary(over: Any, weight: float) -> None:
    model, x, y = classifier()
    guide = fit_variances(SharedVariance(model, over=over), [(x, y)], kl_weight=weight)
    loss = VariationalLaplaceELBO(EXACT, kl_weight=weight)(model, guide)
    assert len(guide.log_scale) == {per_network: 1, per_layer: 2, per_tensor: 4}[over]
    torch.testing.assert_close(
        torch.autograd.grad(loss(x, y), guide.log_scale)[0], torch.zeros_like(guide.log_scale), rtol=0, atol=1e-12
    )


def test_they_are_the_diagonal_laplace_of_the_means() -> None:
    """A part of the training data is scaled up to its size."""
    model, x, y = classifier()
    model = BNN(model.net, model.subset, model.prior, model.likelihood, size=8)
    guide = fit_variances(MeanField(model), [(x, y)])
    laplace = Laplace(model, structure=Diagonal).fit([(x, y)])
    torch.testing.assert_close(guide.log_scale.exp().detach() ** 2, laplace.covariance.diagonal())
    value = VariationalLaplaceELBO(EXACT)(model, guide)(x, y)
    torch.testing.assert_close(-value.detach(), laplace.log_evidence(), rtol=0, atol=1e-9)


def problem() -> tuple[BNN, DataLoader[Any], Tensor, Tensor]:
    net = mlp()
    model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.categorical, size=40)
    x = torch.randn(40, 3)
    y = (x[:, 0] > 0).long()
    return model, DataLoader(TensorDataset(x, y), batch_size=10, shuffle=True), x, y


def test_profiled_variances_are_those_of_the_means() -> None:
    model, loader, x, y = problem()
    guide = MeanField(model)
    before = guide.loc.detach().clone()
    loss = ProfiledVariances(VariationalLaplaceELBO(kl_weight=0.5)(model, guide), loader, every_calls=4)
    assert [name for name, p in loss.named_parameters() if p.requires_grad] == ["loss.guide.loc"]
    history = fit(loss, loader, epochs=5, optimizer=partial(torch.optim.Adam, lr=0.02), progress=False)
    assert history.loss[-1] < history.loss[0]
    assert (guide.loc - before).abs().max() > 0.05
    assert int(loss.calls) == 20
    held = guide.log_scale.detach().clone()
    loss(x, y)
    again = fit_variances(MeanField(model, init=means(guide, model)), [(x, y)], kl_weight=0.5)
    torch.testing.assert_close(guide.log_scale, again.log_scale, check_stride=False)
    assert (guide.log_scale - held).abs().max() > 1e-4
    kept = guide.log_scale.clone()
    for _ in range(3):
        loss(x, y)
    assert torch.equal(guide.log_scale, kept)


def means(guide: MeanField, model: BNN) -> dict[str, Tensor]:
    parts = guide.loc.detach().split([shape.numel() for shape in model.sites.values()])
    return {name: part.reshape(shape) for (name, shape), part in zip(model.sites.items(), parts, strict=True)}


def test_the_profiled_gradient_is_that_of_the_log_evidence() -> None:
    """The envelope theorem, by finite differences of the diagonal Laplace
    evidence in the means.
    """
    model, x, y = classifier()
    guide = fit_variances(MeanField(model), [(x, y)])
    found = torch.autograd.grad(VariationalLaplaceELBO(EXACT)(model, guide)(x, y), guide.loc)[0]
    for j in (0, 5, 11):
        values = []
        for step in (1e-5, -1e-5):
            other = MeanField(model)
            with torch.no_grad():
                other.loc[j] += step
            mode = Laplace(model, means(other, model), structure=Diagonal).fit([(x, y)])
            values.append(-mode.log_evidence())
        assert (values[0] - values[1]).item() / 2e-5 == pytest.approx(found[j].item(), abs=1e-6)


def test_variances_get_their_own_learning_rate() -> None:
    model, loader, _, _ = problem()
    model = model.with_prior(priors.normal(learned(1.0)))
    made = []

    def adam(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        made.append(torch.optim.Adam(groups, lr=1e-3))
        return made[0]

    guide = MeanField(model)
    loss = VariationalLaplaceELBO()(model, guide)
    fit(loss, loader, epochs=1, optimizer=adam, groups=faster_variances(1e-3, multiplier=20), progress=False)
    rates = {id(p): group["lr"] for group in made[0].param_groups for p in group["params"]}
    assert rates[id(guide.log_scale)] == pytest.approx(0.02)
    assert {rates[id(p)] for p in loss.parameters() if p is not guide.log_scale} == {1e-3}


@pytest.mark.parametrize(
    ("name", "fast"),
    [
        ("guide.log_scale", True),
        ("guide.scales.0.weight", False),
        ("guide.scale_tril", True),
        ("guide.loc", False),
        ("model.prior.log_scale", False),
        ("guide.cov_factor", True),
    ],
)
def test_names_of_variances(name: str, fast: bool) -> None:
    found = faster_variances(0.1, 3.0)(name, nn.Parameter(torch.zeros(1)))
    assert found == ({"lr": pytest.approx(0.3)} if fast else {})


def test_refused() -> None:
    model, x, y = linear_bnn()
    with pytest.raises(ValueError, match=r"multiplier must be at least 1, not 0.5"):
        faster_variances(0.1, 0.5)
    with pytest.raises(ValueError, match="learning rate must be positive, not 0"):
        faster_variances(0)
    guide = MeanField(model)
    with pytest.raises(ValueError, match="weight of the KL must be positive, not 0"):
        fit_variances(guide, [(x, y)], kl_weight=0)
    wrong: Any = Laplace(model)
    with pytest.raises(TypeError, match="must be a MeanField or a SharedVariance, not Laplace"):
        fit_variances(wrong, [(x, y)])
    with pytest.raises(ValueError, match="at least one call between passes is needed, not 0"):
        ProfiledVariances(VariationalLaplaceELBO()(model, guide), [(x, y)], every_calls=0)


@pytest.mark.parametrize("curvature", [None, ExactFisher(), FisherProbes(2000)], ids=["layers", "exact", "probes"])
def test_the_ways_to_the_fisher_information_agree(curvature: Any) -> None:
    model, x, y = classifier()
    guide = fit_variances(MeanField(model), [(x[:1], y[:1]), (x[1:], y[1:])], curvature=curvature)
    expected = Laplace(model, structure=Diagonal).fit([(x, y)]).covariance.diagonal()
    tolerance = 0.15 if isinstance(curvature, FisherProbes) else 1e-12
    torch.testing.assert_close(guide.log_scale.detach().exp() ** 2, expected, rtol=tolerance, atol=0)


@pytest.mark.parametrize("make", [MeanField, SharedVariance])
@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_any_pyro_model(make: Any, weight: float) -> None:
    """A hierarchy with a site in a plate: stationary, for batches of all pairs too."""
    guide = make(regression_in_groups, None)
    loss = VariationalLaplaceELBO(EXACT, kl_weight=weight)(regression_in_groups, guide)
    fit_variances(guide, [(torch.tensor(i),) for i in ([0, 1], [0, 2], [1, 2])], kl_weight=weight)
    found = torch.autograd.grad(loss(None), guide.log_scale)[0]
    torch.testing.assert_close(found, torch.zeros_like(found), rtol=0, atol=1e-10)


def regression_in_groups(chosen: Tensor | None) -> None:
    centre = pyro.sample("centre", dist.Normal(real(0.0).squeeze(), 2.0))
    with pyro.plate("groups", 2):
        w = pyro.sample("w", dist.Normal(centre, real(0.5, 0.9)))
    with pyro.plate("data", 3, subsample=chosen) as i:
        pyro.sample("y", dist.Normal((X[i] * w).sum(-1), NOISE), obs=Y[i])


@pytest.mark.parametrize("weight", [1.0, 0.1])
def test_weights_that_the_data_leave_alone_get_the_prior(weight: float) -> None:
    model, x, y = classifier()
    dead = torch.stack([x[:, 0], torch.zeros(2, dtype=torch.double)], 1)
    guide = fit_variances(MeanField(model), [(dead, y)], kl_weight=weight)
    first = guide.log_scale[:4].reshape(2, 2).detach()
    torch.testing.assert_close(first[:, 1], torch.zeros(2, dtype=torch.double), rtol=0, atol=1e-12)
    assert (first[:, 0] < -1e-6).all()
    loss = VariationalLaplaceELBO(kl_weight=weight)(model, guide)(dead, y)
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, [guide.loc, guide.log_scale]))


def test_what_has_no_closed_form() -> None:
    def heavy(_: object) -> None:
        w = pyro.sample("w", dist.StudentT(4.0, real(0.0).squeeze(), 2.0))
        pyro.sample("y", dist.Normal(w, 1.0), obs=real(0.2).squeeze())

    with pytest.raises(ValueError, match="the prior of 'w' is StudentT, not normal"):
        fit_variances(MeanField(heavy, None), [None])
    with pytest.raises(ValueError, match="the loader is empty"):
        fit_variances(MeanField(heavy, None), [])


def test_shared_variance_refuses() -> None:
    net = nn.Linear(2, 1)
    model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.normal(1.0))
    with pytest.raises(ValueError, match="initial standard deviation must be positive, not 0"):
        SharedVariance(model, scale=0)
    with pytest.raises(ValueError, match="init has 'w', but the sites are weight, bias"):
        SharedVariance(model, init={"w": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"start of 'bias' has shape \(2,\), the site has \(1,\)"):
        SharedVariance(model, init={"bias": torch.zeros(2)})
    latent = model.with_prior(priors.hierarchical(scale=dist.HalfCauchy(1.0)))
    with pytest.raises(ValueError, match=r"site 'weight_scale' is constrained to .* shares no variance"):
        SharedVariance(latent)
    state = SharedVariance(model, over=per_tensor).state_dict()
    with pytest.raises(ValueError, match="belongs to another network, subset or model"):
        SharedVariance(model).load_state_dict(state)


def test_shared_variance_linearised() -> None:
    model, x, _ = classifier()
    shared = SharedVariance(model, over=per_layer)
    with torch.no_grad():
        shared.log_scale.copy_(real(-1.0, -2.0))
    single = MeanField(model)
    sizes = [shape.numel() for shape in model.sites.values()]
    with torch.no_grad():
        single.log_scale.copy_(torch.cat([torch.full((n,), v) for n, v in zip(sizes, (-1, -1, -2, -2), strict=True)]))
    found, expected = shared.output_distribution(x), single.output_distribution(x)
    torch.testing.assert_close(found.mean, expected.mean)
    torch.testing.assert_close(found.covariance_matrix, expected.covariance_matrix)
