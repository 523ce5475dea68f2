"""Methods that need the source's network: its last layer retrained or given a
posterior, and all of it tuned.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bayesnn import likelihoods, priors, subset
from bayesnn.functional import call
from bayesnn.guides import Laplace
from bayesnn.models import BNN, truncate
from bayesnn.predict import gaussian, probit
from bayesnn.transfer.data import TransferData
from bayesnn.transfer.predictions import NormalQuantiles, Prediction, Probabilities
from bayesnn.transfer.ridge import bayesian_ridge, logistic_at, logistic_ridge, ridge, strengths

RATE, STEPS, PATIENCE = 0.01, 2000, 10
"""Of fine-tuning: Adam's rate, at most so many steps, and looks at the held-out fifth without a
gain, 10 steps each.
"""


def last_layer(data: TransferData, seed: int) -> Prediction:
    """The source's last linear layer retrained by ridge regression around its weights;
    leave-one-out intervals.

    Raises:
        ValueError: the source is no network that ends in a linear layer with one output.
    """
    head = _Head(data, "last_layer")
    penalty = torch.ones_like(head.h[0])
    if data.binary:
        weights = logistic_ridge(head.h, head.y, penalty, head.f).weights
        return Probabilities((head.f_new + head.h_new @ weights).sigmoid())
    fit = ridge(head.h, head.y - head.f, penalty)
    mean = head.f_new + head.h_new @ fit.weights
    return NormalQuantiles(mean, fit.left_out.square().mean().sqrt().expand_as(mean))


def last_layer_laplace(data: TransferData, seed: int) -> Prediction:
    """The posterior of the last layer under a normal prior around the source's weights: exact, or
    Laplace's for logits.

    Prior scale (of a grid) and noise maximise the evidence.

    Raises:
        ValueError: as `last_layer`.
    """
    head = _Head(data, "last_layer_laplace")
    if data.binary:
        guides = [_posterior(head, head.logistic(strength), strength**-0.5, None) for strength in strengths(head.h)]
        best = max(guides, key=lambda guide: float(guide.log_evidence()))
        outputs = best.output_distribution(head.phi_new)
        return Probabilities(probit(best.model.likelihood, outputs).probs[:, 0, 1])
    fit = bayesian_ridge(head.h, head.y - head.f)
    best = _posterior(head, fit.weights, fit.noise / fit.strength**0.5, fit.noise)
    p = gaussian(best.model.likelihood, best.output_distribution(head.phi_new))
    return NormalQuantiles(p.mean.squeeze(1), p.variance.squeeze(1).sqrt())


def fine_tuned(data: TransferData, seed: int) -> Prediction:
    """All weights by Adam from the source's, stopped by a held-out fifth of the training data.

    The interval is normal, with the root mean squared error of that fifth, which also chose when
    to stop: it is optimistic, as such intervals are in practice.

    Raises:
        ValueError: the source is no network, or gives probabilities; fewer than five training
            examples.
    """
    net = _network(data, "fine_tuned")
    n = len(data.y_train)
    if n < 5:
        raise ValueError(f"fine_tuned: {n} training examples are too few to hold a fifth out; at least 5 are needed")
    order = torch.randperm(n)
    left, kept = order[: max(n // 5, 2)], order[max(n // 5, 2) :]
    net = copy.deepcopy(net).requires_grad_()
    dtype = next(net.parameters()).dtype
    y = data.y_train.to(dtype)
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    best, state, waited = float("inf"), copy.deepcopy(net.state_dict()), 0
    for step in range(STEPS):
        if step % 10 == 0:
            with torch.no_grad():
                now = float(_loss(net(data.x_train[left]).reshape(-1), y[left], binary=data.binary))
            best, waited, state = (now, 0, copy.deepcopy(net.state_dict())) if now < best else (best, waited + 1, state)
            if waited > PATIENCE:
                break
        optimizer.zero_grad()
        _loss(net(data.x_train[kept]).reshape(-1), y[kept], binary=data.binary).backward()
        optimizer.step()
    net.load_state_dict(state)
    with torch.no_grad():
        outputs = net(data.x_test).reshape(-1).double()
    if data.binary:
        return Probabilities(outputs.sigmoid())
    return NormalQuantiles(outputs, torch.tensor(best, dtype=torch.double).sqrt().expand_as(outputs))


def _loss(outputs: Tensor, y: Tensor, *, binary: bool) -> Tensor:
    return F.binary_cross_entropy_with_logits(outputs, y) if binary else F.mse_loss(outputs, y)


class _Head:
    """The source's last layer in double precision, its inputs phi, and h, which
    are phi and a one for the bias.
    """

    def __init__(self, data: TransferData, caller: str) -> None:
        net = _network(data, caller)
        layers = [(name, module) for name, module in net.named_modules() if list(module.parameters(recurse=False))]
        name, last = layers[-1] if layers else ("", net)
        if not isinstance(last, nn.Linear) or last.out_features != 1:
            raise ValueError(
                f"{caller}: the last layer with parameters must be nn.Linear with one output, not {last}; leave the "
                "method out for this source"
            )
        self.layer = copy.deepcopy(last).double()
        with torch.no_grad():
            both = [call(truncate(net, name), {}, x) if name else x for x in (data.x_train, data.x_test)]
        self.phi, self.phi_new = (phi.detach().double().flatten(1) for phi in both)
        self.h, self.h_new = self._with_bias(self.phi), self._with_bias(self.phi_new)
        self.f, self.f_new, self.y = data.f_train, data.f_test, data.y_train.double()

    def logistic(self, strength: float) -> Tensor:
        """The change of the weights by a logistic regression at one strength."""
        return logistic_at(self.h, self.y, torch.ones_like(self.h[0]), self.f, strength)

    def changed(self, weights: Tensor) -> dict[str, Tensor]:
        """{parameter: value} of the layer with its weights, and bias, changed by these."""
        count = self.layer.in_features
        moved = {"weight": self.layer.weight.detach() + weights[:count]}
        return moved if self.layer.bias is None else {**moved, "bias": self.layer.bias.detach() + weights[count:]}

    def _with_bias(self, phi: Tensor) -> Tensor:
        return phi if self.layer.bias is None else torch.cat([phi, phi.new_ones(len(phi), 1)], 1)


def _posterior(head: _Head, weights: Tensor, scale: float, noise: float | None) -> Laplace:
    """Laplace's approximation at these changes of the weights; without noise of
    a binary response.
    """
    likelihood = likelihoods.bernoulli if noise is None else likelihoods.normal(noise)
    layer = head.layer
    model = BNN(layer, subset.everything(layer), priors.around(layer, scale), likelihood)
    return Laplace(model, head.changed(weights)).fit([(head.phi, head.y.unsqueeze(1))])


def _network(data: TransferData, caller: str) -> nn.Module:
    if not isinstance(data.source, nn.Module) or data.link is not None:
        raise ValueError(
            f"{caller}: it changes the weights of a network whose output is on the link scale; leave the method out "
            "for a source that is a function, predictions or probabilities"
        )
    return data.source
