"""Every model, guide, objective and sampler, and what has to be said of the
tempering of what comes out.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from nets import mlp
from pyro import distributions as dist
from pyro.infer import MCMC, NUTS
from pyro.infer.autoguide import AutoNormal

from bayesnn import BNN, likelihoods, mcmc, priors, subset
from bayesnn.guides import (
    SWAG,
    AmortisedHead,
    FlipoutELBO,
    Laplace,
    LastLayer,
    LastLayerELBO,
    LastLayerMeanField,
    LastLayerPosterior,
    LocalReparameterisationELBO,
    MeanField,
    MeanFieldELBO,
    MomentPropagationELBO,
    MultiplicativeNoise,
    RankOneELBO,
    RankOneGuide,
    RECaSTGuide,
    SharedVariance,
    VariationalLaplaceELBO,
    recast_nuts,
)
from bayesnn.models import (
    GenerativeClassifier,
    LatentHead,
    NeuralLinear,
    RankOneEnsemble,
    batch_ensemble,
    latent_rank_one,
    recast,
)

X, Y = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 1, 0, 1, 0])
REAL = X[:, :2].clone()
F, RESPONSE = torch.linspace(-2, 2, 20), torch.linspace(-2, 2, 20) + 0.1 * torch.sin(50 * torch.linspace(-2, 2, 20))
SIZE, WEIGHT, LATENT, MEMBERS = 18, 0.25, 5, 3
PUBLISHED = SIZE * MEMBERS / 3
"""The weight of LP-BNN for two layers."""
Made = tuple[Any, Any, tuple[Any, Any]]
"""Model, posterior and the arguments of a call."""


class Row(NamedTuple):
    """An objective on a model and its guide, and the weight of the KL divergence that holds."""

    make: Callable[[], Made]
    elbo: Any
    weight: float


def model_of(prior: Any = None) -> BNN:
    net = mlp()
    prior = priors.normal(0.7) if prior is None else prior
    return BNN(net, subset.everything(net), prior, likelihoods.categorical, size=SIZE)


def bnn(guide: Any) -> Callable[[], Made]:
    def make() -> Made:
        model = model_of()
        return model, guide(model), (X, Y)

    return make


def head(**options: Any) -> Callable[[], Made]:
    def make() -> Made:
        model = LatentHead(LATENT, 2, likelihoods.categorical, size=SIZE, **options)
        return model, AmortisedHead(mlp(outputs=4), 4, model), (X, Y)

    return make


def members(wrap: Any, **options: Any) -> Callable[[], Made]:
    def make() -> Made:
        model = RankOneEnsemble(wrap(mlp(), MEMBERS), likelihoods.categorical, size=SIZE, **options)
        return model, RankOneGuide(model), (X, Y)

    return make


def encoded(net: Any, count: int) -> Any:
    return latent_rank_one(net, count, latent=2)


def neural_linear(guide: Any) -> Callable[[], Made]:
    def make() -> Made:
        model = NeuralLinear(mlp(outputs=4), 4, 2, likelihoods.normal(0.5), size=len(X))
        return model, guide(model), (X, REAL)

    return make


def classifier() -> Made:
    model = GenerativeClassifier(mlp(outputs=4), 4, 2, size=SIZE)
    return model, LastLayerMeanField(model), (X, Y)


def transferred() -> Made:
    model = recast.continuous(None)
    return model, MeanField(model, F, RESPONSE), (F, RESPONSE)


TRAINED: dict[str, Row] = {
    "MeanFieldELBO": Row(bnn(MeanField), MeanFieldELBO(kl_weight=WEIGHT), WEIGHT),
    "MeanFieldELBO, Bayes' rule": Row(bnn(MeanField), MeanFieldELBO(), 1.0),
    "LocalReparameterisationELBO": Row(bnn(MeanField), LocalReparameterisationELBO(kl_weight=WEIGHT), WEIGHT),
    "FlipoutELBO": Row(bnn(MeanField), FlipoutELBO(kl_weight=WEIGHT), WEIGHT),
    "VariationalLaplaceELBO": Row(bnn(SharedVariance), VariationalLaplaceELBO(kl_weight=WEIGHT), WEIGHT),
    "VariationalLaplaceELBO of a guide of Pyro's": Row(
        bnn(AutoNormal), VariationalLaplaceELBO(kl_weight=WEIGHT), WEIGHT
    ),
    "MomentPropagationELBO": Row(bnn(MultiplicativeNoise), MomentPropagationELBO(kl_weight=WEIGHT), WEIGHT),
    "V-TST, as published": Row(head(), MeanFieldELBO(), 1 / LATENT),
    "V-TST, by a factor": Row(head(), MeanFieldELBO(kl_weight=WEIGHT), WEIGHT / LATENT),
    "V-TST, Bayes' rule": Row(head(kl_weight=1.0), MeanFieldELBO(), 1.0),
    "V-TST, variational Laplace": Row(head(), VariationalLaplaceELBO(kl_weight=WEIGHT), WEIGHT / LATENT),
    "LP-BNN, as published": Row(members(encoded), RankOneELBO(), PUBLISHED),
    "LP-BNN, by a factor": Row(members(encoded), RankOneELBO(kl_weight=WEIGHT), WEIGHT * PUBLISHED),
    "LP-BNN, Bayes' rule": Row(members(encoded, kl_weight=1.0), RankOneELBO(), 1.0),
    "rank-1 BNN": Row(members(batch_ensemble, prior=dist.Normal(1.0, 0.1)), RankOneELBO(), 1.0),
    "rank-1 BNN, tempered": Row(
        members(batch_ensemble, prior=dist.Normal(1.0, 0.1), kl_weight=0.5), RankOneELBO(), 0.5
    ),
    "BatchEnsemble": Row(members(batch_ensemble), RankOneELBO(), 1.0),
    "VBLL": Row(neural_linear(LastLayer), LastLayerELBO(), 1.0),
    "VBLL by draws": Row(neural_linear(LastLayer), MeanFieldELBO(kl_weight=WEIGHT), WEIGHT),
    "VBLL, generative": Row(classifier, LastLayerELBO(), 1.0),
    "RECaST": Row(transferred, MeanFieldELBO(kl_weight=WEIGHT), WEIGHT),
}


def _laplace() -> Made:
    model = model_of()
    return model, Laplace(model).fit([(X, Y)]), (X, Y)


def _swag() -> Made:
    model = model_of()
    guide = SWAG(model)
    for _ in range(3):
        guide.collect({site: value + torch.randn_like(value) for site, value in model.values().items()})
    return model, guide, (X, Y)


def _exact() -> Made:
    model, guide, args = neural_linear(LastLayerPosterior)()
    return model, guide.fit([args]), args


def _recast_guide() -> Made:
    model = recast.continuous(None)
    return model, RECaSTGuide(model).fit(F, RESPONSE), (F, RESPONSE)


def _recast_nuts() -> Made:
    model = recast.continuous(None)
    return model, recast_nuts(model, F, RESPONSE, draws=4, warmup=4, chains=1, progress=False), (F, RESPONSE)


def _nuts(make: Callable[[], Made]) -> Made:
    model, _, args = make()
    run = MCMC(NUTS(model), num_samples=2, warmup_steps=1, disable_progbar=True)
    run.run(*args)
    return model, run, args


def _sghmc(temperature: float) -> Made:
    model = model_of()
    options: dict[str, Any] = {"epochs": 8, "step": 1e-3, "draws": 2, "progress": False}
    return (
        model,
        mcmc.sghmc(model, [(X.clone(), Y.clone()) for _ in range(3)], temperature=temperature, **options),
        (X, Y),
    )


def _dict() -> Made:
    model = model_of()
    return model, {site: value.expand(2, *value.shape) for site, value in model.values().items()}, (X, Y)


FITTED: dict[str, tuple[Callable[[], Made], dict[str, float]]] = {
    "Laplace": (_laplace, {}),
    "SWAG": (_swag, {}),
    "LastLayerPosterior": (_exact, {}),
    "RECaSTGuide": (_recast_guide, {}),
    "recast_nuts": (_recast_nuts, {}),
    "NUTS": (lambda: _nuts(bnn(MeanField)), {}),
    "NUTS of a model that states its weight": (
        lambda: _nuts(head()),
        {"kl_weight": 1 / LATENT, "temperature": LATENT},
    ),
    "sghmc": (lambda: _sghmc(1.0), {"temperature": 1.0}),
    "sghmc, cold": (lambda: _sghmc(0.5), {"temperature": 0.5}),
    "a dict of draws": (_dict, {}),
}
"""Posteriors that no objective with a KL divergence trained: (how to make one,
what has to be said).
"""

OTHERS = {
    "Diagonal": "a structure of Laplace",
    "Full": "a structure of Laplace",
    "Hessian": "a structure of Laplace",
    "Kronecker": "a structure of Laplace",
    "LowRank": "a structure of Laplace",
    "train_online": "makes a Laplace",
    "LastLayerEvidence": "trains no guide",
    "faster_variances": "groups of parameters",
}
"""What `bayesnn.guides` exports beside guides, objectives and samplers."""
