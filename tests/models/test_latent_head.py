"""TST and V-TST: the golden values and tests of their specification, and every
door of the package.
"""

import copy
import pickle
from functools import partial

import pyro
import pytest
import torch
from conftest import Untouched
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO
from statistical import assert_mean
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.models import mobilenet_v2, resnet18

from bayesnn import fit, learned, likelihoods, predict, predictive, to_arviz
from bayesnn.guides import AmortisedHead, MeanFieldELBO
from bayesnn.models import LatentHead, cache_features, truncate

N, LATENT = 12, 4


def body() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).eval()


def data() -> tuple[Tensor, Tensor]:
    return torch.randn(N, 3), torch.arange(N) % 3


def made(**options: object) -> tuple[LatentHead, AmortisedHead]:
    point = bool(options.pop("point", False))
    model = LatentHead(LATENT, 3, likelihoods.categorical, size=60, **options)  # type: ignore[arg-type]
    return model, AmortisedHead(truncate(body(), "3"), 8, model, point=point)


def test_kl_divergence_golden() -> None:
    """T2: the KL of one example, and its published weight 1 / latent."""
    model = LatentHead(2, 2, likelihoods.categorical)
    guide = AmortisedHead(nn.Identity(), 1, model, bounded=False)
    with torch.no_grad():
        for head, value in ((guide.mean_head, [0.3, -1.2]), (guide.variance_head, [-0.5, -2.0])):
            assert head is not None
            head[2].weight.zero_()
            head[2].bias.copy_(torch.tensor(value))
    loc, variance = guide.moments(torch.zeros(1, 1))
    assert variance is not None
    kl = kl_divergence(Normal(loc, variance.sqrt()), Normal(0.0, 1.0))
    torch.testing.assert_close(kl, torch.tensor([[0.0982653299, 1.2876676416]]))
    with torch.no_grad():  # a decoder that knows nothing: -E log p(y | z) = log 2
        model.decoder.weight.zero_()
        model.decoder.bias.zero_()
    loss = MeanFieldELBO()(model, guide)(torch.zeros(1, 1), torch.tensor([0]))
    torch.testing.assert_close(loss - torch.log(torch.tensor(2.0)), torch.tensor(0.6929664857))


def test_variance_is_bounded_by_the_priors() -> None:
    """T3."""
    guide = AmortisedHead(nn.Identity(), 1, LatentHead(3, 2, likelihoods.categorical))
    assert guide.variance_head is not None
    with torch.no_grad():
        guide.variance_head[2].weight.zero_()
        guide.variance_head[2].bias.copy_(torch.tensor([-2.0, 0.0, 3.0]))
    variance = guide.moments(torch.zeros(1, 1))[1]
    torch.testing.assert_close(variance, torch.tensor([[0.1192029220, 0.5, 0.9525741268]]))


def test_no_variance_is_tst() -> None:
    """T4: with log variance -inf every draw is the network of the mean head; a point is the same
    without a variance.
    """
    model, guide = made()
    assert guide.variance_head is not None
    x = torch.randn(5, 3)
    with torch.no_grad():
        guide.variance_head[2].bias.fill_(-200.0)
    plain = model.decoder(guide.mean_head(guide.phi(x)))
    torch.testing.assert_close(predict(guide, x, 3, model=model), plain.expand(3, 5, 3))
    point = AmortisedHead(guide._features[0], 8, model, point=True)
    point.mean_head = guide.mean_head
    torch.testing.assert_close(predict(point, x, 1, model=model)[0], plain)


def test_predictions_average_probabilities() -> None:
    """T5: and not logits."""
    model = LatentHead(2, nn.Identity(), likelihoods.categorical)
    guide = AmortisedHead(nn.Identity(), 2, model, bounded=False)
    x = torch.randn(4, 2)
    pyro.set_rng_seed(0)
    p = predictive(guide, x, 50, model=model)
    pyro.set_rng_seed(0)
    torch.testing.assert_close(p.probs, predict(guide, x, 50, model=model).softmax(-1).mean(0))
    logits = torch.tensor([[[2.0, 0.0, 0.0]], [[0.0, 3.0, 0.0]]])
    mean = likelihoods.categorical(logits).probs.mean(0)
    torch.testing.assert_close(mean, torch.tensor([[0.4161322715, 0.5079749887, 0.0758927398]]))


def test_one_draw_is_unbiased_for_many() -> None:
    """T4: E over z of softmax(decode z), by a grid over a single entry of z."""
    model = LatentHead(1, 2, likelihoods.categorical)
    guide, x = AmortisedHead(nn.Identity(), 1, model), torch.ones(1, 1)
    loc, variance = guide.moments(x)
    assert variance is not None
    z = torch.linspace(-8, 8, 2001).unsqueeze(1)
    weights = Normal(loc, variance.sqrt()).log_prob(z).softmax(0)
    exact = (weights * model.decoder(z).softmax(-1)).sum(0).detach()
    assert_mean(predict(guide, x, 2000, model=model).softmax(-1)[:, 0], exact)


def test_outputs_of_a_linear_decoder_are_normal() -> None:
    """T6: E = A mu + b, Cov = A diag(s^2) A^T, against draws."""
    model, guide = made()
    x = torch.randn(2, 3)
    outputs = guide.output_distribution(x)
    draws = predict(guide, x, 3000, model=model)
    assert_mean(draws, outputs.mean)
    centred = draws - outputs.mean
    assert_mean(centred.unsqueeze(-1) * centred.unsqueeze(-2), outputs.covariance_matrix)
    other = AmortisedHead(nn.Identity(), 3, LatentHead(2, nn.Tanh(), likelihoods.categorical))
    with pytest.raises(TypeError, match="linear decoder"):
        other.output_distribution(x)


@pytest.mark.parametrize("kl_weight", [None, 1.0, 0.3])
def test_elbo_is_the_published_loss(kl_weight: float | None) -> None:
    """T8: on fixed noise, ELBO / n = mean cross-entropy + kl_weight mean KL, by
    ours and both of Pyro's.
    """
    model, guide = made(kl_weight=kl_weight)
    x, y = data()
    pyro.set_rng_seed(3)
    loss = MeanFieldELBO()(model, guide)(x, y)
    gradient = torch.autograd.grad(loss, guide.mean_head[0].weight)[0]
    pyro.set_rng_seed(3)
    mean_field = TraceMeanField_ELBO().differentiable_loss(model, guide, x, y)
    loc, variance = guide.moments(x)
    assert variance is not None
    pyro.set_rng_seed(3)
    z = loc + variance.sqrt() * torch.randn(N, LATENT)
    kl = 0.5 * (variance + loc**2 - 1 - variance.log()).sum(1)
    weight = 1 / LATENT if kl_weight is None else kl_weight
    published = F.cross_entropy(model.decoder(z), y) + weight * kl.mean()
    torch.testing.assert_close(loss / 60, published)
    torch.testing.assert_close(mean_field / 60, published)
    torch.testing.assert_close(gradient / 60, torch.autograd.grad(published, guide.mean_head[0].weight)[0])
    traced = torch.stack([Trace_ELBO().differentiable_loss(model, guide, x, y) for _ in range(200)])
    closed = torch.stack([MeanFieldELBO()(model, guide)(x, y) for _ in range(200)])
    assert_mean((traced - closed).detach(), torch.zeros(()))


def test_tst_has_no_prior_term() -> None:
    model, guide = made(kl_weight=0.0, point=True)
    x, y = data()
    expected = 60 * F.cross_entropy(model.decoder(guide.mean_head(guide.phi(x))), y)
    torch.testing.assert_close(MeanFieldELBO()(model, guide)(x, y), expected)
    torch.testing.assert_close(torch.as_tensor(Trace_ELBO().loss(model, guide, x, y)), expected.detach())


def test_frozen_means_frozen(untouched: Untouched) -> None:
    """T1: after stage two features are bit-identical, whatever the mode; heads
    and decoder moved.
    """
    net = body()
    with untouched(net):
        features = truncate(net, "3")
        model = LatentHead(LATENT, 3, likelihoods.categorical, size=N)
        guide = AmortisedHead(features, 8, model)
        held = copy.deepcopy(features.state_dict())
        before = [p.detach().clone() for p in (*guide.parameters(), *model.parameters())]
        guide.train()
        features.train()
        fit(MeanFieldELBO()(model, guide), [data()], epochs=3, progress=False)
    for name, value in features.state_dict().items():
        assert torch.equal(value, held[name]), name
    changed = [not torch.equal(p, q) for p, q in zip((*guide.parameters(), *model.parameters()), before, strict=True)]
    assert all(changed)
    assert not any("features" in name for name, _ in guide.named_parameters())


def test_batch_statistics_as_published() -> None:
    features = truncate(body(), "3", batch_statistics=True)
    model = LatentHead(LATENT, 3, likelihoods.categorical)
    guide, (x, y) = AmortisedHead(features, 8, model), data()
    mean = features.state_dict()["net.1.running_mean"].clone()
    MeanFieldELBO()(model, guide)(x, y)
    assert torch.equal(features.state_dict()["net.1.running_mean"], mean)
    features.train()
    MeanFieldELBO()(model, guide)(x, y)
    assert not torch.equal(features.state_dict()["net.1.running_mean"], mean)
    with pytest.raises(ValueError, match=r"follow the statistics of their batch.*features.eval\(\)"):
        cache_features(features, [(x, y)])


@pytest.mark.parametrize(
    ("build", "at", "width"), [(resnet18, "fc", 512), (mobilenet_v2, "classifier.1", 1280), (resnet18, "avgpool", 512)]
)
def test_truncated_torchvision_networks(build: type, at: str, width: int) -> None:
    net, x = build(weights=None).eval(), torch.randn(2, 3, 32, 32)
    phi = truncate(net, at)(x)
    assert phi.shape == (2, width)
    if at == "fc":
        torch.testing.assert_close(net.fc(phi), net(x))


def test_cached_features_train_the_same_heads() -> None:
    model, guide = made()
    x, y = data()
    cached = cache_features(guide._features[0], [(x[:8], y[:8]), (x[8:], y[8:])])
    pyro.set_rng_seed(1)
    direct = MeanFieldELBO()(model, guide)(x, y)
    pyro.set_rng_seed(1)
    torch.testing.assert_close(MeanFieldELBO()(model, guide.of_features())(*cached.tensors), direct)
    assert {id(p) for p in guide.of_features().parameters()} == {id(p) for p in guide.parameters()}


class Augmented(Dataset[tuple[Tensor, Tensor]]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return torch.full((3,), float(i)) + 0.1 * torch.randn(3), torch.tensor(i % 2)


def test_augmented_loaders() -> None:
    loader = DataLoader(Augmented(), batch_size=2)
    with pytest.raises(ValueError, match=r"random augmentation.*copies=10"):
        cache_features(nn.Identity(), loader)
    phi, y = cache_features(nn.Identity(), loader, copies=3).tensors
    assert phi.shape == (12, 3)
    assert not torch.equal(phi[:4], phi[4:8])
    assert torch.equal(y[:4], y[4:8])


@pytest.mark.parametrize("likelihood", ["normal", "bernoulli"])
def test_any_likelihood(likelihood: str) -> None:
    """Regression has V-TST too, with a learned noise that is trained."""
    family = likelihoods.normal(learned(0.5)) if likelihood == "normal" else likelihoods.bernoulli
    model = LatentHead(LATENT, 1, family, size=N)
    guide, x = AmortisedHead(nn.Identity(), 3, model), torch.randn(N, 3)
    y = (x[:, :1] > 0).float()
    history = fit(
        MeanFieldELBO()(model, guide), [(x, y)], epochs=60, progress=False, optimizer=partial(torch.optim.Adam, lr=0.02)
    )
    assert history.loss[-1] < history.loss[0]
    assert predictive(guide, x, 5, model=model).log_prob(y).shape == (N,)


@pytest.mark.usefixtures("parameter_mode")
def test_doors() -> None:
    """predict in chunks, both modes of Predictive, vectorised particles, SVI, ArviZ, state dicts,
    pickles, copies.
    """
    model, guide = made(name="head")
    x, y = data()
    assert predict(guide, x, 3, model=model, chunk=5).shape == (3, N, 3)
    for parallel in (False, True):
        drawn = Predictive(model, guide=guide, num_samples=4, parallel=parallel)(x)
        assert drawn["head.y"].shape[0] == 4
        assert drawn["head.z"].shape[-2:] == (N, LATENT)
    elbo = TraceMeanField_ELBO(num_particles=5, vectorize_particles=True, max_plate_nesting=1)
    assert torch.isfinite(elbo.differentiable_loss(model, guide, x, y))
    before = model.decoder.weight.detach().clone()
    SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO()).step(x, y)
    assert not torch.equal(model.decoder.weight, before)
    # more than the training data
    assert predict(guide, torch.randn(61, 3), 2, model=model).shape == (2, 61, 3)
    tree = to_arviz(guide, x, y, model=model, draws=6)
    assert tree["log_likelihood"]["head.y"].shape == (1, 6, N)
    for other in (copy.deepcopy(guide), pickle.loads(pickle.dumps(guide))):
        torch.testing.assert_close(other.moments(x)[0], guide.moments(x)[0])
    fresh = made(name="head")[1]
    fresh.load_state_dict(guide.state_dict())
    torch.testing.assert_close(fresh.mean_head[2].weight, guide.mean_head[2].weight)
    with pytest.raises(ValueError, match="another network, subset or model"):
        made()[1].load_state_dict(guide.state_dict())


class Skips(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused, self.sequence = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.sequence(self.used(x).unsqueeze(0)).squeeze(0)


def test_bad_truncation_points() -> None:
    with pytest.raises(ValueError, match="ResNet has no layer 'head'; there are conv1, bn1"):
        truncate(resnet18(weights=None), "head")
    with pytest.raises(ValueError, match="there are 0, 1, 2, 3"):
        truncate(body(), "")
    with pytest.raises(ValueError, match="does not call 'unused'"):
        truncate(Skips(), "unused")(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"'sequence' gets a tensor of shape \(1, 2, 3\) for 2 inputs"):
        truncate(Skips(), "sequence")(torch.zeros(2, 3))


def test_bad_input() -> None:
    x, y = data()
    model, guide = made()
    with pytest.raises(ValueError, match="the network has 3 outputs, for labels 0 to 2"):
        MeanFieldELBO()(model, guide)(x, y + 1)
    with pytest.raises(ValueError, match="x is not finite at index"):
        MeanFieldELBO()(model, guide)(x / 0, y)
    with pytest.raises(ValueError, match="size = 60 examples of training data"):
        MeanFieldELBO()(model, guide)(x.repeat(6, 1), y.repeat(6))
    with pytest.raises(ValueError, match=r"features have shape \(12, 8\), but \[batch, 9\]"):
        AmortisedHead(guide._features[0], 9, model).phi(x)
    with pytest.raises(ValueError, match="training mode"):
        AmortisedHead(body().train(), 3, model).phi(x)
    with pytest.raises(TypeError, match="must be a LatentHead"):
        AmortisedHead(nn.Identity(), 3, body())  # type: ignore[arg-type]
    for wrong, text in (({"latent": 0}, "at least one"), ({"kl_weight": -1.0}, "kl_weight"), ({"size": 0}, "size")):
        with pytest.raises(ValueError, match=text):
            LatentHead(**{"latent": 2, "decoder": 2, "likelihood": likelihoods.categorical, **wrong})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="loader is empty"):
        cache_features(nn.Identity(), [])
    with pytest.warns(UserWarning, match="no training example has the label 1"):
        cache_features(nn.Identity(), DataLoader(TensorDataset(x[:2], torch.tensor([0, 2]))))
