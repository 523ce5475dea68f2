"""Every guide with a model it belongs to: `GUIDES[kind].make(name) -> Problem`; a new guide is one
line.

Pyro's own guides stand in the table as witnesses that the contract is Pyro's.
"""

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import rank_one_problems
import torch
from nets import mlp
from pyro.infer import TraceMeanField_ELBO
from pyro.infer.autoguide import AutoDelta, AutoLaplaceApproximation, AutoNormal, init_to_mean
from torch import Tensor, nn

from bayesnn import BNN, learned, likelihoods, priors, subset
from bayesnn.guides import (
    SWAG,
    AmortisedHead,
    Diagonal,
    FlipoutELBO,
    Full,
    Hessian,
    Kronecker,
    Laplace,
    LastLayer,
    LastLayerELBO,
    LastLayerMeanField,
    LastLayerPosterior,
    LocalReparameterisationELBO,
    LowRank,
    MeanField,
    MeanFieldELBO,
    MomentPropagationELBO,
    MultiplicativeNoise,
    RankOneELBO,
    RankOneGuide,
    RECaSTGuide,
    SharedVariance,
    VariationalLaplaceELBO,
)
from bayesnn.models import GenerativeClassifier, LatentHead, NeuralLinear, RankOneEnsemble, latent_rank_one, recast

LABELS = torch.tensor([0, 1, 1, 0, 1, 0])


class Problem(NamedTuple):
    """A guide, the model whose posterior it approximates, and data of six examples.

    `network` is the user's, which nobody may write to; None where the model owns what it trains.
    """

    guide: Any
    model: Any
    x: Any
    y: Tensor
    network: nn.Module | None = None


class Case(NamedTuple):
    """How a guide is made, and which of the laws have an exception for it.

    Attributes:
        make: name of the model -> problem.
        again: model -> a guide of the same kind that was fitted to nothing, which a state is
            loaded into.
        other: a guide of the same kind for another model.
        elbos: its own objectives, besides `Trace_ELBO`.
        trained: it has parameters; others are fitted.
        ours: made by this package.
        local: its sites are those of the call's examples.
        some: a step of `Trace_ELBO` trains a random part of the parameters only.
    """

    make: Callable[[str], Problem]
    again: Callable[[Any], Any] | None = None
    other: Callable[[], Any] | None = None
    elbos: tuple[Any, ...] = ()
    trained: bool = True
    ours: bool = True
    local: bool = False
    some: bool = False


def bnn(name: str = "", chosen: tuple[str, ...] = ("0.bias", "2")) -> tuple[BNN, Tensor, Tensor]:
    net, x = mlp(), torch.randn(6, 3)
    model = BNN(net, subset.named(net, *chosen), priors.normal(0.5), likelihoods.categorical, size=12, name=name)
    return model, x, LABELS


def of_bnn(build: Callable[[BNN, Tensor, Tensor], Any], again: Callable[[BNN], Any] | None, **options: Any) -> Case:
    def make(name: str = "") -> Problem:
        model, x, y = bnn(name)
        return Problem(build(model, x, y), model, x, y, model.net)

    def other() -> Any:
        return build(*bnn("", ("0",)))

    return Case(make, again, other, **options)


def trained(kind: Callable[[BNN], Any], *elbos: Any) -> Case:
    return of_bnn(lambda model, x, y: kind(model), kind, elbos=elbos)


def laplace(structure: Any) -> Case:
    make = partial(Laplace, structure=structure)
    return of_bnn(lambda model, x, y: make(model).fit([(x, y)]), make, trained=False)


def at_its_mode(model: BNN, x: Tensor, y: Tensor) -> Laplace:
    """The exact Hessian is positive definite where the log joint density has its maximum."""
    values = {site: nn.Parameter(value.clone()) for site, value in model.values().items()}
    optimizer = torch.optim.LBFGS(values.values(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        fit = 2 * likelihoods.categorical(model.outputs(values, x)).log_prob(y).sum()
        loss = sum((value**2).sum() for value in values.values()) / (2 * 0.5**2) - fit
        loss.backward()
        return loss

    optimizer.step(closure)
    return Laplace(model, {s: value.detach() for s, value in values.items()}, structure=Hessian).fit([(x, y)])


def swag(model: BNN, x: Tensor, y: Tensor) -> SWAG:
    guide = SWAG(model, rank=3)
    for _ in range(4):
        guide.collect({site: value + 0.1 * torch.randn_like(value) for site, value in model.values().items()})
    return guide


def auto(kind: Any) -> Callable[[BNN, Tensor, Tensor], Any]:
    def build(model: BNN, x: Tensor, y: Tensor) -> Any:
        guide = kind(model)
        guide(x, y)  # Pyro's guides make their parameters at the first call
        return guide

    return build


def auto_laplace(model: BNN, x: Tensor, y: Tensor) -> Any:
    # where the Hessian is positive definite
    guide = AutoLaplaceApproximation(model, init_loc_fn=init_to_mean)
    guide(x, y)
    return guide.laplace_approximation(x, y)


def last_layer_model(kind: str, name: str = "", width: int = 4) -> Any:
    net = nn.Sequential(nn.Linear(3, width), nn.Tanh())
    if kind == "regression":
        return NeuralLinear(net, width, 2, likelihoods.normal(learned(0.5)), size=12, name=name)
    if kind == "labels":
        return NeuralLinear(net, width, 2, likelihoods.categorical, size=12, name=name)
    return GenerativeClassifier(net, width, 2, noise=learned(1.0), size=12, name=name)


def last_layer(guide: Any, kind: str) -> Case:
    fitted = guide is LastLayerPosterior

    def make(name: str = "") -> Problem:
        model = last_layer_model(kind, name)
        x, y = torch.randn(6, 3), torch.randn(6, 2) if kind == "regression" else LABELS
        made = guide(model)
        return Problem(made.fit([(x, y)]) if fitted else made, model, x, y)

    def other() -> Any:
        return guide(last_layer_model(kind, width=7))

    elbos = () if fitted else (MeanFieldELBO(), LastLayerELBO())
    return Case(make, guide, other, elbos=elbos, trained=not fitted)


def rank_one(kind: str) -> Case:
    def make(name: str = "") -> Problem:
        model, guide, x, y = rank_one_problems.PROBLEMS[kind](name)
        return Problem(guide, model, x, y)

    def other() -> Any:
        return RankOneGuide(RankOneEnsemble(latent_rank_one(rank_one_problems.body(), 2), likelihoods.categorical))

    return Case(make, again_rank_one, other, elbos=(RankOneELBO(),), some=True)


def again_rank_one(model: RankOneEnsemble) -> RankOneGuide:
    return RankOneGuide(copy.deepcopy(model))


def of_recast(kind: str) -> Case:
    def model_of(name: str) -> Any:
        if kind == "categorical":
            return recast.categorical(None, name=name)
        return (recast.continuous if kind == "continuous" else recast.binary)(None, name=name)

    def make(name: str = "") -> Problem:
        model = model_of(name)
        f = torch.linspace(-1.0, 1.0, 6)
        x = torch.stack([f, -f, 0 * f], -1) if kind == "categorical" else f
        y = f + 0.1 * torch.cos(9 * f) if kind == "continuous" else LABELS if kind == "categorical" else LABELS.float()
        guide = RECaSTGuide(model).fit(x, y, generator=torch.Generator().manual_seed(0))
        return Problem(guide, model, x, y)

    def other() -> Any:
        return RECaSTGuide(recast.binary(None) if kind == "continuous" else recast.continuous(None))

    return Case(make, RECaSTGuide, other, trained=False)


def amortised(name: str = "", latent: int = 4) -> Problem:
    features = nn.Sequential(nn.Linear(3, 5), nn.Tanh()).eval().requires_grad_(requires_grad=False)
    model = LatentHead(latent, 2, likelihoods.categorical, size=12, name=name)
    return Problem(AmortisedHead(features, 5, model), model, torch.randn(6, 3), LABELS, features)


GUIDES: Mapping[str, Case] = {
    "MeanField": trained(
        MeanField,
        TraceMeanField_ELBO(),
        MeanFieldELBO(),
        MeanFieldELBO(3),
        LocalReparameterisationELBO(),
        FlipoutELBO(2),
    ),
    "SharedVariance": trained(SharedVariance, MeanFieldELBO(), VariationalLaplaceELBO()),
    "MultiplicativeNoise": trained(MultiplicativeNoise, MomentPropagationELBO()),
    "Laplace": laplace(Full),
    "Kronecker": laplace(Kronecker),
    "Diagonal": laplace(Diagonal),
    "LowRank": laplace(partial(LowRank, rank=4)),
    "Hessian": of_bnn(at_its_mode, partial(Laplace, structure=Hessian), trained=False),
    "SWAG": of_bnn(swag, partial(SWAG, rank=3), trained=False),
    "LastLayer, regression": last_layer(LastLayer, "regression"),
    "LastLayer, labels": last_layer(LastLayer, "labels"),
    "LastLayer, generative": last_layer(LastLayer, "generative"),
    "LastLayerMeanField, regression": last_layer(LastLayerMeanField, "regression"),
    "LastLayerMeanField, labels": last_layer(LastLayerMeanField, "labels"),
    "LastLayerMeanField, generative": last_layer(LastLayerMeanField, "generative"),
    "LastLayerPosterior": last_layer(LastLayerPosterior, "regression"),
    "AmortisedHead": Case(amortised, None, lambda: amortised(latent=3).guide, elbos=(MeanFieldELBO(),), local=True),
    **{f"RankOneGuide, {kind}": rank_one(kind) for kind in rank_one_problems.PROBLEMS},
    **{f"RECaSTGuide, {kind}": of_recast(kind) for kind in ("continuous", "binary", "categorical")},
    "AutoNormal": of_bnn(auto(AutoNormal), None, elbos=(TraceMeanField_ELBO(), VariationalLaplaceELBO()), ours=False),
    "AutoDelta": of_bnn(auto(AutoDelta), None, elbos=(MeanFieldELBO(),), ours=False),
    "AutoLaplace": of_bnn(auto_laplace, None, trained=False, ours=False),
}
