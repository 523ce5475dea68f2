"""The predictive distribution of y at new inputs."""

from collections.abc import Mapping
from typing import Any

import torch
from pyro import poutine
from torch import Size, Tensor

from bayesnn.functional import Inputs, alone
from bayesnn.handlers import prefixed
from bayesnn.models import Model, likelihood_given
from bayesnn.predict.distribution import PredictiveDistribution
from bayesnn.predict.draw import Posterior, draw_each
from bayesnn.predict.linearised import linearised as linearised_outputs
from bayesnn.predict.outputs import outputs_and_latents
from bayesnn.predict.ownership import network_model_for
from bayesnn.sites import latent_nodes, without_plates


@torch.no_grad()
def predictive(
    posterior: Posterior,
    x: Inputs,
    draws: int = 100,
    *,
    model: Model | None = None,
    linearised: bool = False,
    chunk: int = 1000,
    progress: bool = True,
) -> PredictiveDistribution:
    """p(y | x, D) = 1/S sum_s p(y | f(x; w_s), ...): the likelihood mixed uniformly over draws of
    the posterior.

    Draws of the likelihood's own latent sites (a noise scale) go with the weights of the same
    draw.

    Args:
        posterior: a guide, an MCMC run or a dict of draws.
        x: inputs of `batch` examples.
        draws: how many components the mixture has.
        model: the posterior's own by default, under whose likelihood y is predicted; as of
            `predict`.
        linearised: draw the outputs from the network linearised in its weights at the posterior's
            mean (the GLM predictive), which Laplace approximations are made for; the guide must
            offer `output_distribution(x)`. Latent sites of the likelihood are then drawn
            independently of the outputs.
        chunk: inputs in one pass.
        progress: a tqdm bar over the draws; outputs in closed form, `linearised`, have none.

    Raises:
        ValueError: a posterior of another model, or one that lacks a latent site of the
            likelihood; as `predict`.
        TypeError: as `predict`; `linearised` with a guide that has no `output_distribution`.

    Reference for the linearised form: Immer, Korzepa, Bauer (2021), Improving predictions of
    Bayesian neural nets via local linearization.
    """
    model = network_model_for(posterior, model, "predictive", x)
    if linearised:
        outputs = linearised_outputs(posterior, x, draws)
        shapes = _latent_shapes(model, outputs)
        latents = _draw_latents(model, posterior, x, draws) if shapes else {}
    else:
        outputs, latents = outputs_and_latents(posterior, x, draws, model=model, chunk=chunk, progress=progress)
        shapes = _latent_shapes(model, outputs)
    latents = {name: _event(name, value, shapes.get(name)) for name, value in latents.items()}
    return PredictiveDistribution(likelihood_given(model.likelihood, outputs, latents, name=model.name))


def _latent_shapes(model: Model, outputs: Tensor) -> dict[str, Size]:
    """{site: event shape} of the likelihood's latent sites."""
    with alone(), poutine.block(), poutine.trace() as traced, prefixed(model.name):
        model.likelihood(outputs[0])
    nodes: Mapping[str, Any] = traced.trace.nodes
    return {name: node["fn"].shape() for name, node in latent_nodes(nodes).items()}


def _draw_latents(model: Model, posterior: Posterior, x: Inputs, draws: int) -> dict[str, Tensor]:
    """Draws of the sites that are no weights; weights are drawn with them and
    dropped one by one.
    """
    kept = [
        {name: value for name, value in one.items() if name not in model.sites}
        for one in draw_each(posterior, draws, x, model=model)
    ]
    return {name: torch.stack([one[name] for one in kept]) for name in kept[0]}


def _event(name: str, value: Tensor, shape: Size | None) -> Tensor:
    """Draws of a latent site as [draw, *event]: `Predictive` leaves axes of
    size 1 for plates in between.
    """
    if shape is None:  # no site of the likelihood
        return value
    fitting = without_plates(value, shape, leading=1)
    if fitting is None:
        raise ValueError(
            f"predictive: a draw of {name!r} has shape {tuple(value[0].shape)}, but the likelihood's site has "
            f"{tuple(shape)}; are these draws of another model?"
        )
    return fitting
