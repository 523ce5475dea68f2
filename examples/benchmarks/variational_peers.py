"""Other libraries' variational steps: bayesian-torch where it is installed, and figures that were
measured earlier.
"""

import copy
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from examples.benchmarks.core import Row, stepper
from examples.benchmarks.timing import Action

QUOTED = {
    "MLP": {
        "bayesian-torch 0.5, Reparameterization": 3.56,
        "bayesian-torch 0.5, Flipout": 4.65,
        "TyXe, plain": 4.48,
        "TyXe, local reparameterisation": 5.44,
        "TyXe, flipout": 5.68,
    },
    "LeNet": {
        "bayesian-torch 0.5, Reparameterization": 1.25,
        "bayesian-torch 0.5, Flipout": 2.16,
        "TyXe, plain": 1.75,
        "TyXe, local reparameterisation": 2.91,
        "TyXe, flipout": 2.45,
    },
}
"""{network: {step: ratio to a plain Adam step}}, from a comparison of the libraries that was made
by the same protocol.

TyXe is that of September 2022, the latest, which needs a shim of two lines for Pyro 1.9.
"""


class _Loss(nn.Module):
    """Mean negative log likelihood and the divergence over the size of the data, nats."""

    def __init__(self, net: nn.Module, divergence: Any, size: int) -> None:
        super().__init__()
        self.net, self.divergence, self.size = net, divergence, size

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        loss: Tensor = F.cross_entropy(self.net(x), y) + self.divergence(self.net) / self.size
        return loss


def bayesian_torch(net: nn.Module, batch: tuple[Tensor, ...], size: int) -> dict[str, Action]:
    """Steps of bayesian-torch's converted layers; none where it is not installed."""
    try:
        from bayesian_torch.models.dnn_to_bnn import dnn_to_bnn, get_kl_loss
    except ImportError:
        return {}
    options = {"prior_mu": 0.0, "prior_sigma": 1.0, "posterior_mu_init": 0.0, "posterior_rho_init": -3.0}
    actions = {}
    for kind in ("Reparameterization", "Flipout"):
        converted = copy.deepcopy(net)
        dnn_to_bnn(converted, {**options, "type": kind, "moped_enable": False, "moped_delta": 0.5})
        loss = _Loss(converted, get_kl_loss, size)
        actions[f"bayesian-torch 0.5, {kind}"] = stepper(loss, list(loss.parameters()), batch)
    return actions


def quoted(name: str, measured: dict[str, Action]) -> list[Row]:
    """Rows of what was not measured now."""
    return [
        (f"{name}: step, {label}: measured earlier, not in this run", "", f"{ratio:.2f}", "")
        for label, ratio in QUOTED[name].items()
        if label not in measured
    ]
