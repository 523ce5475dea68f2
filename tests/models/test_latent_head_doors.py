"""TST and V-TST through every door of the package, and what they refuse."""

import copy
import pickle
from functools import partial

import pyro
import pytest
import torch
from latent_head_problems import LATENT, N, body, data, made
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bayesnn import fit, learned, likelihoods, predict, predictive, to_arviz
from bayesnn.guides import AmortisedHead, MeanFieldELBO
from bayesnn.models import LatentHead, cache_features


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
