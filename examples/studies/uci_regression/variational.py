"""Variational methods, and MNVI with the settings that its authors published."""

from dataclasses import replace

import torch
from pyro.infer.elbo import ELBO

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.guides import (
    LocalReparameterisationELBO,
    MeanField,
    MeanFieldELBO,
    MomentPropagationELBO,
    MultiplicativeNoise,
    VariationalLaplaceELBO,
)
from bayesnn.predict import gaussian, predictive

from examples.studies.uci_regression.problem import Data
from examples.studies.uci_regression.recipe import Predictor, Recipe


def mean_field(data: Data, recipe: Recipe, *, scale: float, kl_weight: float) -> Predictor:
    """One draw of the weights a step; predictions by draws."""
    return _drawn(MeanFieldELBO(kl_weight=kl_weight), data, recipe, scale)


def local_reparameterisation(data: Data, recipe: Recipe, *, scale: float, kl_weight: float) -> Predictor:
    """The same posterior, trained with own noise of every example; predictions by draws."""
    return _drawn(LocalReparameterisationELBO(kl_weight=kl_weight), data, recipe, scale)


def variational_laplace(data: Data, recipe: Recipe, *, scale: float, kl_weight: float) -> Predictor:
    """Mean-field, nothing drawn in training; predictions linearised at the mean."""
    model = recipe.model(data, scale)
    guide = MeanField(model)
    recipe.train(VariationalLaplaceELBO(kl_weight=kl_weight)(model, guide), data)
    return lambda x: gaussian(model.likelihood, guide.output_distribution(x))


def multiplicative_noise(data: Data, recipe: Recipe, *, scale: float, kl_weight: float) -> Predictor:
    """MNVI by moment propagation, in training and prediction."""
    model = recipe.model(data, scale)
    guide = MultiplicativeNoise(model)
    recipe.train(MomentPropagationELBO(kl_weight=kl_weight)(model, guide), data)
    return lambda x: gaussian(model.likelihood, guide.output_distribution(x))


def published(data: Data, recipe: Recipe) -> Predictor:
    """MNVI as its authors ran it, in 200 epochs: SGD with momentum, prior N(0, 10), the KL's
    weight 0.01, 0.1, then 1.

    Learning rate and KL weight change after epochs 100 and 150; each entry of the gradient of the
    loss per example is limited to 1 by scaling all of them. The authors' biases have no posterior
    and their second head is the log of a variance; here biases have one and it is that of a
    deviation.
    """
    net = recipe.net(data)
    model = BNN(net, subset.everything(net), priors.normal(10**0.5), likelihoods.heteroscedastic, size=len(data.x))
    guide = MultiplicativeNoise(model)
    parameters = list(guide.parameters())
    batches = replace(data, batch=64)
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    for weight, epochs in ((0.01, 100), (0.1, 50), (1.0, 50)):
        loss = MomentPropagationELBO(kl_weight=weight)(model, guide)
        for _ in range(min(epochs, recipe.steps)):
            for x, y in batches:
                optimizer.zero_grad()
                (loss(x, y) / len(data.x)).backward()
                torch.nn.utils.clip_grad_norm_(parameters, 1.0, norm_type=float("inf"))
                optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] *= 0.1
    return lambda x: gaussian(model.likelihood, guide.output_distribution(x))


def _drawn(elbo: ELBO, data: Data, recipe: Recipe, scale: float) -> Predictor:
    model = recipe.model(data, scale)
    guide = MeanField(model)
    recipe.train(elbo(model, guide), data)
    return lambda x: predictive(guide, x, recipe.draws)
