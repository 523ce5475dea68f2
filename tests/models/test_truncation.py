"""Frozen features: bodies cut before a layer, and features computed once."""

import copy

import pyro
import pytest
import torch
from conftest import Untouched
from latent_head_problems import LATENT, N, body, data, made
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models import mobilenet_v2, resnet18

from bayesnn import fit, likelihoods
from bayesnn.guides import AmortisedHead, MeanFieldELBO
from bayesnn.models import LatentHead, cache_features, truncate


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
