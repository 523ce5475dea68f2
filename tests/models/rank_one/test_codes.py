"""LP-BNN: golden values, limits, the induced distribution of weights, and the
published code's own ways.
"""

from typing import Any

import pytest
import torch
from rank_one_problems import body, normed
from statistical import assert_mean
from torch import Tensor, nn

from bayesnn import likelihoods
from bayesnn.guides import RankOneELBO, RankOneGuide
from bayesnn.guides.rank_one.elbo import divergence
from bayesnn.models import RankOneEnsemble, batch_ensemble, latent_rank_one
from bayesnn.models.rank_one import diversity, parameter_groups, tile
from bayesnn.models.rank_one.code import LayerCode

M = 3


def certain(net: Any, log_variance: float = -80.0) -> Any:
    """Codes with this log variance for every member."""
    for layer in net.layers.values():
        nn.init.zeros_(layer.code.log_variance.weight)
        nn.init.constant_(layer.code.log_variance.bias, log_variance)
    return net


def test_golden_kl_and_squared_error() -> None:
    mean = torch.tensor([[0.5, -0.2], [0.0, 1.0]], dtype=torch.double)
    log_variance = torch.tensor([[-1.0, 0.2], [0.0, -0.5]], dtype=torch.double)
    net = latent_rank_one(nn.Linear(3, 1), 2, latent=2)
    model = RankOneEnsemble(net.double(), likelihoods.categorical)
    guide = RankOneGuide(model)
    layer = net.layers[""]
    assert layer.code is not None
    layer.code.moments = lambda r: (mean, log_variance)  # type: ignore[method-assign]
    posteriors = guide.distributions(torch.arange(2))
    kl = divergence(posteriors["z"], model.priors()["z"])
    assert kl.sum().item() == pytest.approx(0.8929064295, abs=1e-10)
    r = torch.tensor([[1.1, 0.9, 1.0], [0.8, 1.2, 1.05]], dtype=torch.double)
    r_hat = torch.tensor([[1.0, 1.0, 0.9], [0.9, 1.1, 1.0]], dtype=torch.double)
    with torch.no_grad():
        layer.r.copy_(r)
    ((site, term),) = model.reconstructions({"r": r_hat}, torch.arange(2))
    assert site == "reconstruction"
    assert -term.weight * term.distribution.log_prob(term.observed).sum().item() == pytest.approx(0.00875, abs=1e-10)


def test_decoders_start_around_one() -> None:
    code = LayerCode(500, 32)
    vectors = code.vector(torch.randn(2000, 32), torch.zeros(0)).detach()
    assert abs(float(vectors.mean()) - 1) < 0.03
    assert abs(float(vectors.std()) - 3**-0.5) < 0.03  # 32 weights uniform within 1 / 32^(1/2)


def test_without_variance_it_is_batch_ensemble() -> None:
    net, x = certain(latent_rank_one(normed(), M, latent=4)), torch.randn(5, 1, 6, 6)
    assert torch.equal(net(x), net(x))
    vectors = {
        f"{name}.r": layer.code.vector(layer.code.moments(layer.r)[0], layer.r) for name, layer in net.layers.items()
    }
    plain: Any = batch_ensemble(normed(), M, per_member_norm=True)
    missing, _ = plain.load_state_dict(net.state_dict(), strict=False)
    assert not missing
    with torch.no_grad():
        for name, layer in plain.layers.items():
            layer.r.copy_(vectors[f"{name}.r"])
    torch.testing.assert_close(net(x), plain(x))
    assert not torch.equal(net(x), net.rows(tile(x, M)).view(M, 5, -1))  # r itself is not used


@pytest.mark.parametrize(("log_variance", "differ"), [(-80.0, False), (-8.0, True), (0.0, True)])
def test_passes_differ_where_there_is_variance(log_variance: float, differ: bool) -> None:
    net, x = certain(latent_rank_one(body(), M, latent=4), log_variance), torch.randn(5, 3)
    assert torch.equal(net(x), net(x)) is not differ
    assert torch.equal(net.eval()(x), net(x)) is not differ  # codes are drawn in prediction too


def heads(net: Any, kind: type[nn.Module]) -> list[Tensor]:
    codes = [layer.code for layer in net.layers.values() if isinstance(layer.layer, kind)]
    assert codes
    return [parameter for code in codes for head in (code.mean, code.log_variance) for parameter in head.parameters()]


@pytest.mark.parametrize("official", [True, False])
def test_official_convolutions_bypass_the_code(official: bool) -> None:
    net = latent_rank_one(normed(), M, latent=4, official_conv=official)
    x, y = torch.randn(5, 1, 6, 6), torch.tensor([0, 1, 1, 0, 1])
    model = RankOneEnsemble(net, likelihoods.categorical, size=5)
    guide = RankOneGuide(model)
    fit = likelihoods.categorical(net(x)).log_prob(y).sum()
    of_fit = torch.autograd.grad(fit, heads(net, nn.Conv2d), allow_unused=True, materialize_grads=True)
    assert all(bool(gradient.eq(0).all()) for gradient in of_fit) is official
    linear = torch.autograd.grad(RankOneELBO()(model, guide)(x, y), heads(net, nn.Linear) + heads(net, nn.Conv2d))
    assert all(gradient.abs().max() > 0 for gradient in linear)  # the KL divergence acts on all


def test_r_is_frozen_on_request() -> None:
    for train in (True, False):
        net = latent_rank_one(body(), M, train_r=train)
        assert all(layer.r.requires_grad is train and layer.s.requires_grad for layer in net.layers.values())


def test_the_reconstruction_does_not_move_its_data() -> None:
    net = latent_rank_one(nn.Linear(3, 2), M, latent=4)
    model = RankOneEnsemble(net, likelihoods.categorical)
    layer, member = net.layers[""], torch.arange(M)
    vectors = {"r": torch.randn(M, 3)}
    ((_, term),) = model.reconstructions(vectors, member)
    assert torch.equal(term.observed, layer.r)
    assert not term.observed.requires_grad


def test_induced_covariance_of_weights_and_outputs() -> None:
    net = latent_rank_one(nn.Linear(4, 3), 2, latent=2).double()
    layer, x = net.layers[""], torch.randn(1, 4, dtype=torch.double)
    code = layer.code
    assert code is not None
    mean, log_variance = (moment.detach() for moment in code.moments(layer.r))
    D, c, W, s = (t.detach() for t in (code.decoder.weight, code.decoder.bias, layer.layer.weight, layer.s))
    j, draws = 1, 20_000
    of_r = D @ torch.diag(log_variance[j].exp()) @ D.mT
    assert torch.linalg.matrix_rank(of_r) == 2
    weights = W * (s[j][:, None] * (D @ mean[j] + c))  # E[W_j]
    of_y = torch.diag(s[j]) @ W @ torch.diag(x[0]) @ of_r @ torch.diag(x[0]) @ W.mT @ torch.diag(s[j])
    with torch.no_grad():
        r_hat = code.draw(layer.r[j].expand(draws, 4))
        drawn = torch.vmap(lambda r: layer.dense(r, s[j]))(r_hat)
        y = drawn @ x[0] + layer.bias[j]  # type: ignore[index]
    assert_mean(drawn, weights)  # false-alarm rates: tests/statistical.py
    assert_mean(y, weights @ x[0] + layer.bias.detach()[j])  # type: ignore[union-attr]
    for values, covariance in ((r_hat, of_r), (y, of_y)):
        centred = values - values.mean(0)
        assert_mean(centred.unsqueeze(1) * centred.unsqueeze(2) * draws / (draws - 1), covariance)
    column = torch.corrcoef(drawn[:, :, 0].mT)  # entries of one column share one random number
    torch.testing.assert_close(column.abs(), torch.ones(3, 3, dtype=torch.double))


def test_vectors_are_not_decayed() -> None:
    lr, decay = 0.1, 0.05
    for net in (batch_ensemble(normed(), M, per_member_norm=True), latent_rank_one(normed(), M)):
        groups = parameter_groups(net, weight_decay=decay)
        everything = [id(p) for group in groups for p in group["params"]]
        assert sorted(everything) == sorted(id(p) for p in net.parameters())
        for parameter in net.parameters():
            parameter.grad = torch.zeros_like(parameter)
        before = {name: value.clone() for name, value in net.state_dict().items()}
        torch.optim.SGD(groups, lr=lr).step()
        for name, layer in net.layers.items():
            prefix = f"net.{name}."
            for own in ["r", "s", "bias"]:
                assert torch.equal(getattr(layer, own), before[prefix + own])
            torch.testing.assert_close(layer.layer.weight, before[prefix + "layer.weight"] * (1 - lr * decay))
            if layer.code is not None:
                assert layer.code.decoder.bias.eq(1).all()
                shrunk = before[prefix + "code.decoder.weight"] * (1 - lr * decay)
                torch.testing.assert_close(layer.code.decoder.weight, shrunk)


def test_frozen_parameters_have_no_group() -> None:
    net = latent_rank_one(body(), M, train_r=False)
    grouped = {id(p) for group in parameter_groups(net, weight_decay=0.1) for p in group["params"]}
    assert not any(id(layer.r) in grouped for layer in net.layers.values())


def test_diversity_in_closed_form() -> None:
    net = latent_rank_one(nn.Linear(4, 3), M, latent=2)
    layer = net.layers[""]
    assert layer.code is not None
    mean, log_variance = (moment.detach() for moment in layer.code.moments(layer.r))
    D, c = layer.code.decoder.weight.detach(), layer.code.decoder.bias.detach()
    (found,) = diversity(net).values()
    assert found.between == pytest.approx(float((mean @ D.mT + c).var(0).mean().sqrt()))
    variances = torch.stack([torch.diag(D @ torch.diag(v.exp()) @ D.mT) for v in log_variance])
    assert found.within == pytest.approx(float(variances.mean().sqrt()))
    q = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0))
    assert found.kl == pytest.approx(float(kl.sum(-1).mean()))
    plain = batch_ensemble(nn.Linear(4, 3), M)
    expected = float(plain.layers[""].r.detach().var(0).mean().sqrt())
    assert diversity(plain)[""] == pytest.approx((expected, 0.0, 0.0))


def test_collapsed_codes_are_reported() -> None:
    net = latent_rank_one(body(), M)
    for layer in net.layers.values():
        assert layer.code is not None
        for head in (layer.code.mean, layer.code.log_variance):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
    with pytest.warns(UserWarning, match=r"codes have collapsed in 2 of 2 layers \(0, 2\)"):
        found = diversity(net)
    assert all(one.between < 1e-6 and one.within > 0.1 and one.kl == 0 for one in found.values())
    with pytest.raises(ValueError, match="one member cannot differ"):
        diversity(batch_ensemble(body(), 1))
