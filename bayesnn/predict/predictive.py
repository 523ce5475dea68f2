"""The predictive distribution of y at new inputs."""

import torch

from bayesnn.functional import Inputs
from bayesnn.models import Model, likelihood_given
from bayesnn.predict.distribution import PredictiveDistribution
from bayesnn.predict.draw import Posterior, draw
from bayesnn.predict.linearised import linearised as linearised_outputs
from bayesnn.predict.outputs import outputs_and_latents


def predictive(
    model: Model, posterior: Posterior, x: Inputs, draws: int = 100, *, linearised: bool = False, chunk: int = 1000
) -> PredictiveDistribution:
    """p(y | x, D) = 1/S sum_s p(y | f(x; w_s), ...): the likelihood mixed uniformly over draws of the posterior.

    Draws of the likelihood's own latent sites (a noise scale) go with the weights of the same draw.

    Args:
        model: any model of `bayesnn.models`.
        posterior: a guide, an MCMC run or a dict of draws.
        x: inputs of `batch` examples.
        draws: how many components the mixture has.
        linearised: draw the outputs from the network linearised in its weights at the posterior's mean (the GLM
            predictive), which Laplace approximations are made for; the guide must offer `output_distribution(x)`.
        chunk: inputs in one pass.

    Raises:
        ValueError: the posterior lacks a latent site of the likelihood.

    Reference for the linearised form: Immer, Korzepa, Bauer (2021), Improving predictions of Bayesian neural nets via
    local linearization.
    """
    if linearised:
        outputs = linearised_outputs(posterior, x, draws)
        held = draw(posterior, draws, x, model=model)
        latents = {name: value for name, value in held.items() if name not in model.sites}
    else:
        outputs, latents = outputs_and_latents(model, posterior, x, draws, chunk=chunk)
    with torch.no_grad():
        return PredictiveDistribution(likelihood_given(model.likelihood, outputs, latents, name=model.name))
