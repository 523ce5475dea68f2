"""The mean-field guide against what is known exactly: linear-Gaussian models,
dense Jacobians, its sites.
"""

import math

import oracle
import pyro
import pytest
import torch
from nets import NETS, mlp
from pyro import distributions as dist
from pyro import poutine
from statistical import assert_mean
from torch import Tensor, nn

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.guides import MeanField, MeanFieldELBO
from bayesnn.sites import from_vector

NOISE = 0.5


def regression(batch: int = 8, size: int | None = None) -> tuple[BNN, Tensor, Tensor]:
    """A linear regression with two outputs and six weights, in double
    precision; the prior is N(0, 0.7^2).
    """
    net = nn.Linear(3, 2, bias=False).double()
    model = BNN(net, subset.everything(net), priors.normal(0.7), likelihoods.normal(NOISE), size=size)
    x = torch.randn(batch, 3, dtype=torch.double)
    return model, x, x @ torch.randn(3, 2, dtype=torch.double) + NOISE * torch.randn(batch, 2, dtype=torch.double)


def exact_loss(guide: MeanField, x: Tensor, y: Tensor, scale: float = 1.0) -> Tensor:
    """KL + E_q[-log p(y | w)] of the regression, in closed form."""
    m, s = guide.loc.detach().reshape(2, 3), guide.log_scale.detach().exp().reshape(2, 3)
    kl = torch.distributions.kl_divergence(dist.Normal(m, s), dist.Normal(torch.zeros_like(m), 0.7)).sum()
    spread = (y - x @ m.T) ** 2 + x**2 @ (s**2).T
    return kl + scale * (0.5 * math.log(2 * math.pi * NOISE**2) + spread / (2 * NOISE**2)).sum()


def exact_posterior(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [2, 3] and precision [3, 3], which both outputs share."""
    precision = x.T @ x / NOISE**2 + torch.eye(3, dtype=torch.double) / 0.7**2
    return torch.linalg.solve(precision, x.T @ y / NOISE**2).T, precision


def moved(guide: MeanField) -> MeanField:
    """The guide away from its start, with wide standard deviations."""
    with torch.no_grad():
        guide.loc += 0.3 * torch.randn_like(guide.loc)
        guide.log_scale.copy_(math.log(0.3) + 0.2 * torch.randn_like(guide.log_scale))
    return guide


@pytest.mark.parametrize("size", [None, 40])
def test_the_loss_is_unbiased(size: int | None) -> None:
    model, x, y = regression(size=size)
    guide = moved(MeanField(model))
    loss = MeanFieldELBO()(model, guide)
    draws = torch.stack([loss(x, y) for _ in range(300)])
    assert_mean(draws, exact_loss(guide, x, y, scale=1.0 if size is None else size / 8))


def test_the_kl_part_is_exact() -> None:
    """What is left of the loss after the log likelihood at the draw has no noise."""
    model, x, y = regression()
    guide = moved(MeanField(model))
    for seed in range(3):
        pyro.set_rng_seed(seed)
        value = MeanFieldELBO()(model, guide)(x, y)
        pyro.set_rng_seed(seed)
        log_likelihood = dist.Normal(x @ guide()["weight"].T, NOISE).log_prob(y).sum()
        kl = exact_loss(guide, x, y, scale=0.0)
        torch.testing.assert_close(value + log_likelihood, kl)


def test_particles_are_averaged() -> None:
    model, x, y = regression()
    guide = moved(MeanField(model))
    pyro.set_rng_seed(1)
    several = MeanFieldELBO(num_particles=4)(model, guide)(x, y)
    pyro.set_rng_seed(1)
    loss = MeanFieldELBO()(model, guide)
    torch.testing.assert_close(several, torch.stack([loss(x, y) for _ in range(4)]).mean())


def test_minibatches_add_up_to_the_data() -> None:
    model, x, y = regression(batch=8, size=8)
    guide = moved(MeanField(model))

    def value(*batch: Tensor) -> Tensor:
        pyro.set_rng_seed(1)
        return MeanFieldELBO()(model, guide)(*batch)

    parts = [value(x[i : i + 2], y[i : i + 2]) for i in range(0, 8, 2)]
    torch.testing.assert_close(torch.stack(parts).mean(), value(x, y))


def test_the_exact_optimum_has_no_gradient() -> None:
    """q's optimum in a conjugate model: the exact mean, and variances 1 / diag(precision)."""
    model, x, y = regression()
    guide = MeanField(model)
    mean, precision = exact_posterior(x, y)
    with torch.no_grad():
        guide.loc.copy_(mean.reshape(-1))
        guide.log_scale.copy_(-0.5 * precision.diagonal().log().repeat(2))
    loss = MeanFieldELBO()(model, guide)
    draws = [torch.cat(torch.autograd.grad(loss(x, y), list(loss.parameters()))) for _ in range(300)]
    assert_mean(torch.stack(draws), 0.0)


def test_training_finds_the_optimum() -> None:
    model, x, y = regression()
    guide = MeanField(model, scale=0.1)
    loss = MeanFieldELBO()(model, guide)
    optimiser = torch.optim.Adam(loss.parameters(), 0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 800)
    for _ in range(800):
        optimiser.zero_grad()
        loss(x, y).backward()
        optimiser.step()
        schedule.step()
    mean, precision = exact_posterior(x, y)
    scale = precision.diagonal().rsqrt()
    # beside posterior standard deviations
    assert ((guide.loc.reshape(2, 3) - mean) / scale).abs().max() < 0.2
    assert (guide.log_scale.reshape(2, 3) - scale.log()).abs().max() < 0.2


@pytest.mark.parametrize("kind", ["mlp", "conv", "lstm", "batch_norm", "dict"])
def test_output_distribution_is_the_linearised_network(kind: str) -> None:
    net, x = NETS[kind]()
    model = BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.categorical)
    guide = moved(MeanField(model))
    values = from_vector(guide.loc.detach(), model.sites)
    J = oracle.jacobian(model.outputs, values, x)
    outputs = guide.output_distribution(x)
    torch.testing.assert_close(outputs.mean, model.outputs(values, x))
    expected = J @ torch.diag(guide.log_scale.detach().exp() ** 2) @ J.mT
    torch.testing.assert_close(outputs.covariance_matrix, expected, rtol=1e-4, atol=1e-6)


def test_output_distribution_of_fewer_weights_than_outputs() -> None:
    net = mlp(outputs=5)
    chosen = subset.random(net, 2, within=subset.named(net, "0.weight"))
    guide = MeanField(BNN(net, chosen, priors.normal(1.0), likelihoods.categorical), scale=0.5)
    x = torch.randn(4, 3)
    outputs = guide.output_distribution(x)
    J = oracle.jacobian(guide.model.outputs, guide.model.values(), x)
    torch.testing.assert_close(outputs.covariance_matrix, 0.25 * J @ J.mT)
    assert outputs.rsample((3,)).isfinite().all()


def latent_noise() -> tuple[BNN, Tensor, Tensor]:
    net = mlp(outputs=1)
    likelihood = likelihoods.normal(dist.LogNormal(-1.0, 0.5))
    model = BNN(net, subset.last_layer(net), priors.hierarchical(scale=dist.HalfCauchy(1.0)), likelihood)
    return model, torch.randn(6, 3), torch.randn(6, 1)


def test_positive_sites_are_transformed_normals() -> None:
    model, x, y = latent_noise()
    guide = MeanField(model, x, y, init={"y_scale": torch.tensor(0.2)}, scale=0.3)
    draws = [guide() for _ in range(300)]
    assert draws[0].keys() == {"2.weight_scale", "2.weight", "2.bias_scale", "2.bias", "y_scale"}
    scales = torch.stack([one["y_scale"] for one in draws])
    assert (scales > 0).all()
    assert_mean(scales.log(), math.log(0.2))
    assert_mean((scales.log() - math.log(0.2)) ** 2, 0.3**2)
    torch.testing.assert_close(guide.output_distribution(x).mean, model.net(x).detach())


def test_a_site_that_the_guide_lacks() -> None:
    model, x, y = latent_noise()
    with pytest.raises(ValueError, match=r"the guide has no site 'y_scale'.*MeanField\(model, x, y\)"):
        MeanFieldELBO()(model, MeanField(model))(x, y)
    with pytest.raises(ValueError, match="the guide's site 'y_scale' is not in the model; use Trace_ELBO"):
        MeanFieldELBO()(poutine.condition(model, {"y_scale": torch.tensor(1.0)}), MeanField(model, x, y))(x, y)


def intercepts(x: Tensor, group: Tensor, y: Tensor | None = None) -> Tensor:
    """A plain Pyro model: random intercepts in a plate, a simplex, and a site with an event."""
    centre = pyro.sample("centre", dist.Normal(0.0, 1.0))
    with pyro.plate("groups", 3):
        intercept = pyro.sample("intercept", dist.Normal(centre, 0.5))
    slope = pyro.sample("slope", dist.Normal(torch.zeros(2), 1.0).to_event(1))
    share = pyro.sample("share", dist.Dirichlet(torch.ones(3)))
    mean = intercept[..., group] + (x @ slope) * share[..., :1]
    with pyro.plate("data", len(x)):
        return pyro.sample("y", dist.Normal(mean, 0.3), obs=y)


def grouped() -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(6, 2), torch.tensor([0, 1, 2, 0, 1, 2]), torch.randn(6)


def test_plates_and_every_kind_of_site() -> None:
    data = grouped()
    guide = MeanField(intercepts, *data)
    trace = poutine.trace(guide).get_trace(*data)
    assert trace.nodes["intercept"]["cond_indep_stack"][0].name == "groups"
    values = guide()
    assert {name: tuple(value.shape) for name, value in values.items()} == {
        "centre": (),
        "intercept": (3,),
        "slope": (2,),
        "share": (3,),
    }
    torch.testing.assert_close(values["share"].sum(), torch.tensor(1.0))
    assert guide.loc.numel() == 1 + 3 + 2 + 2
    MeanFieldELBO()(intercepts, guide)(*data).backward()
    assert guide.loc.grad is not None
    other = MeanField(intercepts, *data)
    other.load_state_dict(guide.state_dict())
    assert torch.equal(other.loc, guide.loc)
    with pytest.raises(TypeError, match="linearisation needs a BNN"):
        guide.output_distribution(data[0])


def test_the_vectorised_elbo_draws_plates_of_particles() -> None:
    data = grouped()
    guide = MeanField(intercepts, *data, scale=0.2)
    with pyro.plate("particles", 5, dim=-2):
        values = guide()
    assert values["intercept"].shape == (5, 3)
    assert values["share"].shape == (5, 1, 3)


@pytest.mark.parametrize("whole", [True, False])
def test_a_subsampled_plate(whole: bool) -> None:
    def model(size: int) -> None:
        with pyro.plate("many", 10, subsample_size=size):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    if whole:
        assert MeanField(model, 10)()["z"].shape == (10,)
    else:
        with pytest.raises(ValueError, match="'z' lies in the plate 'many', which is subsampled: 4 of 10"):
            MeanField(model, 4)


def test_starts() -> None:
    model, x, y = latent_noise()
    guide = MeanField(model, x, y, init={"2.bias": torch.tensor([3.0])})
    start = from_vector(guide.loc.detach(), guide.shapes)
    assert start["2.bias"].tolist() == [3.0]
    torch.testing.assert_close(start["2.weight"], model.values()["2.weight"])
    assert guide.log_scale.detach().exp().allclose(torch.tensor(0.01))
    net = mlp().double()
    precise = MeanField(BNN(net, subset.everything(net), priors.normal(1.0), likelihoods.categorical))
    assert precise.loc.dtype == torch.double


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ({"bias": torch.zeros(1)}, "init has 'bias', but the sites are 2.weight_scale, 2.weight"),
        ({"2.bias": torch.zeros(2)}, r"the start of '2.bias' has shape \(2,\), the site has \(1,\)"),
        ({"y_scale": torch.tensor(-1.0)}, "the start of 'y_scale' is not inside the site's support"),
        ({"y_scale": torch.tensor(0.0)}, "the start of 'y_scale' is not inside the site's support"),
    ],
)
def test_bad_starts(init: dict[str, Tensor], message: str) -> None:
    model, x, y = latent_noise()
    with pytest.raises(ValueError, match=message):
        MeanField(model, x, y, init=init)


def coin(_: object) -> None:
    pyro.sample("coin", dist.Bernoulli(0.5))


def test_models_that_have_no_mean_field_guide() -> None:
    model, x, _ = latent_noise()
    with pytest.raises(ValueError, match="site 'coin' is discrete"):
        MeanField(coin, None)
    with pytest.raises(ValueError, match="the example has no targets"):
        MeanField(model, x)
    with pytest.raises(TypeError, match="give the arguments of one call"):
        MeanField(intercepts)
    with pytest.raises(ValueError, match="no latent site"):
        MeanField(lambda x: x, 1)
    with pytest.raises(ValueError, match="standard deviation must be positive, not 0"):
        MeanField(model, scale=0)


def test_the_guide_keeps_no_draws_of_its_own() -> None:
    """A guide of P weights holds two tensors of that size, and pickles no more."""
    model, *_ = regression()
    guide = MeanField(model)
    held = [value for value in vars(guide).values() if isinstance(value, Tensor)]
    assert not held
    assert not [site for site in guide._sites.values() if any(isinstance(v, Tensor) for v in vars(site).values())]
