"""Every guide that `bayesnn.guides` exports knows its model: predictions need no `model=` and
refuse another one.
"""

import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import mlp
from pyro import distributions as dist
from pyro.infer import ELBO
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn

from bayesnn import BNN, guides, likelihoods, priors, subset
from bayesnn.guides.common.closed_form_elbo import ClosedFormELBO
from bayesnn.guides.laplace.structure import Structure
from bayesnn.models import Guide, LatentHead, LinearisedGuide, NeuralLinear, RankOneEnsemble, is_flat_guide, recast
from bayesnn.models import batch_ensemble as converted
from bayesnn.predict import predictive
from bayesnn.predict.ownership import own_model

X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
NOISE, OTHER = likelihoods.normal(0.5), likelihoods.normal(0.7)
SKELETON = Path(__file__).parents[2] / "docs" / "developer" / "guide_skeleton.py"
OBJECTIVES = (ClosedFormELBO, ELBO, guides.LastLayerEvidence)
NET = mlp(3, 4, 1)


def network(likelihood: Any) -> BNN:
    return BNN(NET, subset.last_layer(NET), priors.normal(0.5), likelihood)


def last_layer(likelihood: Any) -> NeuralLinear:
    torch.manual_seed(1)
    return NeuralLinear(nn.Linear(3, 4), 4, 1, likelihood)


def ensemble(likelihood: Any) -> RankOneEnsemble:
    torch.manual_seed(1)
    return RankOneEnsemble(converted(NET, 2), likelihood)


def latent(likelihood: Any) -> LatentHead:
    torch.manual_seed(1)
    return LatentHead(4, 1, likelihood)


def calibrated(likelihood: Any) -> Any:
    model = recast.continuous(lambda x: x[:, 0])
    if likelihood is OTHER:
        model.likelihood = OTHER
    return model


def collected(model: BNN) -> guides.SWAG:
    guide = guides.SWAG(model, rank=2)
    for step in range(3):
        guide.collect({site: value + step for site, value in model.values().items()})
    return guide


def skeleton(model: BNN) -> Any:
    spec = importlib.util.spec_from_file_location("guide_skeleton", SKELETON)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SharedScale(model)


def auto(model: BNN) -> AutoNormal:
    guide = AutoNormal(model)
    guide(X)  # Pyro's guides make their parameters at the first call
    return guide


DATA = [(X, X[:, :1])]
GUIDES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Guide]]] = {
    "AmortisedHead": (latent, lambda model: guides.AmortisedHead(nn.Identity(), 3, model)),
    "Laplace": (network, lambda model: guides.Laplace(model).fit(DATA)),
    "LastLayer": (last_layer, guides.LastLayer),
    "LastLayerMeanField": (last_layer, guides.LastLayerMeanField),
    "LastLayerPosterior": (last_layer, lambda model: guides.LastLayerPosterior(model).fit(DATA)),
    "MeanField": (network, guides.MeanField),
    "MultiplicativeNoise": (network, guides.MultiplicativeNoise),
    "RankOneGuide": (ensemble, guides.RankOneGuide),
    "RECaSTGuide": (calibrated, guides.RECaSTGuide),
    "SharedVariance": (network, guides.SharedVariance),
    "SWAG": (network, collected),
}
WITNESSES = {"the skeleton": (network, skeleton), "AutoNormal": (network, auto)}
every_guide = pytest.mark.parametrize(("model_of", "guide_of"), [*GUIDES.values(), *WITNESSES.values()])


def test_no_guide_is_forgotten() -> None:
    """What is exported is a structure of Laplace's, an objective, or a guide
    with a line in the table.
    """
    classes = {name: value for name, value in vars(guides).items() if inspect.isclass(value)}
    rest = {name for name, value in classes.items() if not issubclass(value, (Structure, *OBJECTIVES))}
    assert rest == GUIDES.keys()


def drawn(*args: Any, **keywords: Any) -> Tensor:
    torch.manual_seed(3)
    p = predictive(*args, **keywords)
    return p.components.sample()


@every_guide
def test_a_guide_is_used_with_its_own_model(model_of: Any, guide_of: Any) -> None:
    model = model_of(NOISE)
    guide = guide_of(model)
    assert isinstance(guide, Guide)
    assert own_model(guide) is model
    torch.testing.assert_close(drawn(guide, X, 2), drawn(guide, X, 2, model=model))
    # made twice
    torch.testing.assert_close(drawn(guide, X, 2), drawn(guide, X, 2, model=model_of(NOISE)))
    with pytest.raises(
        ValueError, match=r"predictive: this .* is of another model: its likelihood is .* leave out mod"
    ):
        predictive(guide, X, 2, model=model_of(OTHER))


@every_guide
def test_outputs_in_closed_form(model_of: Any, guide_of: Any) -> None:
    guide = guide_of(model_of(NOISE))
    if isinstance(guide, LinearisedGuide):
        assert guide.output_distribution(X).batch_shape == (6,)
        assert drawn(guide, X, 2, linearised=True).shape[:2] == (2, 6)
    else:
        with pytest.raises(TypeError, match=r"has no closed form of its outputs, output_distribution\(x\)"):
            predictive(guide, X, 2, linearised=True)


def test_which_guides_have_a_mean_of_exactly_the_weights() -> None:
    found = {name for name, (model_of, guide_of) in GUIDES.items() if is_flat_guide(guide_of(model_of(NOISE)))}
    last = {"LastLayer", "LastLayerMeanField", "LastLayerPosterior"}
    assert found == {"Laplace", "MeanField", "MultiplicativeNoise", "SharedVariance", "SWAG"} | last
    noisy = network(likelihoods.normal(dist.HalfNormal(1.0)))
    # its mean has the latent noise too
    assert not is_flat_guide(guides.MeanField(noisy, X, X[:, :1]))
    assert not is_flat_guide(noisy)
