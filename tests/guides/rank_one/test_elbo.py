"""RankOneELBO is the published loss times the size of the data, and the mean over members of the
Pyro model's own.
"""

import math
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO
from rank_one_problems import MEMBERS, PROBLEMS, SIZE, body, normed
from statistical import assert_mean
from torch import Tensor, nn
from torch.nn import functional as F

from bayesnn import likelihoods
from bayesnn.guides import RankOneELBO, RankOneGuide
from bayesnn.guides.rank_one.elbo import divergence
from bayesnn.models import RankOneEnsemble, batch_ensemble, latent_rank_one
from bayesnn.models.rank_one import shared_batch, tile
from bayesnn.tempering import noted

every_problem = pytest.mark.parametrize("kind", PROBLEMS)


def noise(seed: int = 3) -> None:
    pyro.set_rng_seed(seed)


@pytest.mark.parametrize("members", [2, 4])
@pytest.mark.parametrize("mu", [1.0, 0.3])
def test_the_published_loss_of_lp_bnn(members: int, mu: float) -> None:
    net = latent_rank_one(normed(), members, latent=4)
    x, y = torch.randn(6, 1, 6, 6), torch.tensor([0, 1, 1, 0, 1, 0])
    model = RankOneEnsemble(net, likelihoods.categorical, size=50)
    noise()
    loss = RankOneELBO(kl_weight=mu)(model, RankOneGuide(model))(x, y)
    # By hand, layer by layer, as the published code has it.
    noise()
    vectors, latent_losses, divisor = {}, [], 1
    for name, layer in net.layers.items():
        assert layer.code is not None
        h = torch.relu(layer.code.encoder(layer.r))
        m, lv = layer.code.mean(h), layer.code.log_variance(h)
        z = m + torch.exp(0.5 * lv) * torch.randn_like(m)
        r_hat = layer.code.decoder(z)
        kl = -0.5 * torch.sum(1 + lv - m**2 - lv.exp())
        latent_losses.append(F.mse_loss(r_hat, layer.r) + kl)
        vectors[f"{name}.r"] = r_hat
        divisor += 1
    rows = net.rows(tile(x, members), vectors)
    published = F.cross_entropy(rows, y.repeat(members)) + mu / divisor * sum(latent_losses)
    torch.testing.assert_close(loss / 50, published)


@pytest.mark.parametrize("shared", [False, True])
def test_batch_ensemble_has_nothing_but_the_likelihood(shared: bool) -> None:
    net, x, y = batch_ensemble(body(), 3), torch.randn(6, 3), torch.tensor([0, 1, 1, 0, 1, 0])
    model = RankOneEnsemble(net, likelihoods.categorical, size=50)
    loss = RankOneELBO(share=shared)(model, RankOneGuide(model))(x, y)
    rows, labels = (shared_batch(x, 3), y) if shared else (tile(x, 3), y.repeat(3))
    torch.testing.assert_close(loss / 50, F.cross_entropy(net.rows(rows), labels))


def given_member(model: Any, guide: Any, x: Tensor, y: Tensor, j: int, values: dict[str, Tensor]) -> Tensor:
    """-ELBO of Pyro's two programs at one member and these values, with log q - log p replaced by
    the KL divergence.
    """
    data = {site: value[j] for site, value in values.items()} | {model.site("member"): torch.tensor(j)}
    guided = poutine.trace(poutine.condition(guide, data=data)).get_trace(x, y)
    modelled = poutine.trace(poutine.condition(model, data=data)).get_trace(x, y)
    total = torch.zeros(())
    for name, node in modelled.nodes.items():
        if node["type"] != "sample" or type(node["fn"]).__name__ == "_Subsample" or name == model.site("member"):
            continue
        if name in values:
            assert node["scale"] == guided.nodes[name]["scale"]
            total = total + node["scale"] * divergence(guided.nodes[name]["fn"], node["fn"])
        else:
            total = total - (node["scale"] * node["fn"].log_prob(node["value"])).sum()
    return total


@every_problem
def test_it_is_the_mean_over_members_of_the_pyro_model(kind: str) -> None:
    model, guide, x, y = PROBLEMS[kind]("net")
    noise()
    loss = RankOneELBO()(model, guide)(x, y)
    noise()
    values = {site: q.rsample() for site, q in guide.distributions(torch.arange(MEMBERS)).items()}
    each = [given_member(model, guide, x, y, j, values) for j in range(MEMBERS)]
    torch.testing.assert_close(loss, torch.stack(each).mean())
    parameters = [p for p in [*model.parameters(), *guide.parameters()] if p.requires_grad]
    ours = torch.autograd.grad(loss, parameters, materialize_grads=True, allow_unused=True)
    theirs = torch.autograd.grad(torch.stack(each).mean(), parameters, materialize_grads=True, allow_unused=True)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max() + 1e-3))


def test_trace_elbo_has_this_expectation() -> None:
    model, guide, x, y = PROBLEMS["LP-BNN"]()
    with torch.no_grad():
        ours, pyros = RankOneELBO()(model, guide), Trace_ELBO()(model, guide)
        differences = torch.stack([ours(x, y) - pyros(x, y) for _ in range(300)])
    assert_mean(differences, 0.0)  # false-alarm rate: tests/statistical.py


def test_enumerated_members_are_the_same() -> None:
    model, guide, x, y = PROBLEMS["BatchEnsemble"]()
    enumerated = TraceEnum_ELBO(max_plate_nesting=1)(model, pyro.infer.config_enumerate(guide))
    torch.testing.assert_close(enumerated(x, y), RankOneELBO()(model, guide)(x, y))


@pytest.mark.parametrize("family", [dist.Normal, dist.Cauchy])
def test_divergences_are_those_of_quadrature(family: Any) -> None:
    q, p = family(torch.tensor([0.7, 1.3]), torch.tensor([0.2, 1.1])), family(torch.tensor(1.0), torch.tensor(0.5))
    q, p = (family(d.loc.double(), d.scale.double()) for d in (q, p))
    angle = torch.linspace(-math.pi / 2, math.pi / 2, 400_001, dtype=torch.double)[1:-1]
    grid = angle.tan().unsqueeze(-1)  # dw = dt / cos^2 t, which reaches the tails
    weight = (angle[1] - angle[0]) / angle.cos().unsqueeze(-1) ** 2
    numeric = (q.log_prob(grid).exp() * (q.log_prob(grid) - p.log_prob(grid)) * weight).sum(0)
    torch.testing.assert_close(divergence(q, p), numeric, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(divergence(q.to_event(1), p.expand([2]).to_event(1)), divergence(q, p).sum())


def test_other_families_are_refused() -> None:
    with pytest.raises(ValueError, match=r"KL\(Normal \|\| Laplace\) has no closed form here"):
        divergence(dist.Normal(torch.zeros(2), 1.0), dist.Laplace(torch.zeros(2), 1.0))
    model = RankOneEnsemble(batch_ensemble(body(), 2), likelihoods.categorical, prior=dist.Laplace(1.0, 1.0))
    with pytest.raises(ValueError, match="normal or Cauchy as the prior is, not Laplace"):
        RankOneGuide(model)


def test_published_weights_and_what_is_said_of_them() -> None:
    model, guide, x, y = PROBLEMS["LP-BNN"]()
    weight = SIZE * MEMBERS / (2 + 1)
    assert model.weight_of_kl() == model.weight_of_kl(x) == weight
    loss = RankOneELBO(kl_weight=0.5)(model, guide)
    assert loss.metadata == {"objective": "RankOneELBO", "kl_weight": 0.5 * weight}
    loss(x, y).backward()
    assert noted(guide) == {"kl_weight": 0.5 * weight}
    free = RankOneEnsemble(model.net, model.likelihood)
    assert free.weight_of_kl(x) == len(x) * MEMBERS / 3  # without size, the batch is all data
    assert free.weight_of_kl() is None
    assert RankOneEnsemble(model.net, model.likelihood, size=100, kl_weight=1.0).weight_of_kl() == 1
    assert PROBLEMS["rank-1, normal"]()[0].weight_of_kl() == 1


@every_problem
def test_without_size_a_batch_is_all_data(kind: str) -> None:
    model, _, x, y = PROBLEMS[kind]()
    other = RankOneEnsemble(
        model.net, model.likelihood, size=len(y), prior=model.prior, kl_weight=model.kl_weight, name=model.name
    )
    model.size = None
    losses = []
    for one in (model, other):
        noise()
        losses.append(RankOneELBO()(one, RankOneGuide(one))(x, y))
    torch.testing.assert_close(*losses)


def test_training_mode_is_that_of_the_tiled_batch() -> None:
    net = batch_ensemble(normed().train(), 2)
    model = RankOneEnsemble(net, likelihoods.categorical, size=6)
    x, y = torch.randn(6, 1, 6, 6), torch.tensor([0, 1, 1, 0, 1, 0])
    norm: Any = net.net[1]
    seen = int(norm.num_batches_tracked)
    before = norm.running_mean.clone()
    loss = RankOneELBO()(model, RankOneGuide(model))(x, y)
    assert int(norm.num_batches_tracked) == seen + 1
    assert not torch.equal(norm.running_mean, before)
    rows = net.rows(tile(x, 2))
    torch.testing.assert_close(loss / 6, F.cross_entropy(rows, y.repeat(2)))


def test_a_dropout_in_training_mode_is_active() -> None:
    net = batch_ensemble(nn.Sequential(nn.Linear(3, 50), nn.Dropout(0.5), nn.Linear(50, 2)), 2)
    model = RankOneEnsemble(net, likelihoods.categorical)
    loss = RankOneELBO()(model, RankOneGuide(model))
    x, y = torch.randn(6, 3), torch.tensor([0, 1, 1, 0, 1, 0])
    assert not torch.equal(loss(x, y), loss(x, y))
    model.eval()
    assert torch.equal(loss(x, y), loss(x, y))


def test_what_cannot_be_a_step() -> None:
    model, guide, x, y = PROBLEMS["BatchEnsemble"]()
    elbo = RankOneELBO()
    with pytest.raises(ValueError, match="targets are needed"):
        elbo(model, guide)(x)
    with pytest.raises(ValueError, match=r"y has shape \(5,\)"):
        elbo(model, guide)(x, y[:5])
    with pytest.raises(ValueError, match="5 rows cannot be shared by 3 members; give a batch of 3 or 6"):
        RankOneELBO(share=True)(model, guide)(x[:5], y[:5])
    with pytest.raises(ValueError, match=r"size = 12 examples .* one batch has 13"):
        elbo(model, guide)(torch.zeros(13, 3), torch.zeros(13, dtype=torch.long))
    with pytest.raises(ValueError, match=r"x is not finite at index \[0, 0\]"):
        elbo(model, guide)(x / 0, y)
    with pytest.raises(TypeError, match="not RankOneEnsemble and function"):
        elbo(model, test_what_cannot_be_a_step)(x, y)
    latent = RankOneEnsemble(model.net, likelihoods.normal(dist.HalfCauchy(1.0)))
    with pytest.raises(ValueError, match="the likelihood has the latent site 'y_scale'"):
        elbo(latent, RankOneGuide(latent))(x, torch.zeros(6, 2))
    with pytest.raises(ValueError, match="from 0, not -1"):
        RankOneELBO(kl_weight=-1.0)
