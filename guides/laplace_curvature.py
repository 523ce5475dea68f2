"""The curvature that a full-covariance Laplace approximation needs, summed over batches."""

from collections.abc import Callable, Mapping

import torch
from pyro import distributions as dist
from torch import Tensor, nn

from bayesnn.functional import Inputs, batch_size, call, ggn, ggn_linear, linear_input, parameters
from bayesnn.models import BNN, likelihood_given

Check = Callable[[dist.TorchDistribution, Tensor], None]


class Curvature:
    """H = sum_i J_i^T L_i J_i and sum_i log p(y_i | f(x_i; w*)), by per-example Jacobians of the random weights.

    Attributes:
        matrix: H, [param, param].
        log_likelihood: in nats, unscaled.
    """

    def __init__(self, model: BNN, values: Mapping[str, Tensor]) -> None:
        self.model = model
        self.values = dict(values)
        first = next(iter(values.values()))
        k = len(model.subset)
        self.matrix = torch.zeros(k, k, dtype=first.dtype, device=first.device)
        self.log_likelihood = torch.zeros((), dtype=torch.double, device=first.device)

    @torch.no_grad()
    def add(self, x: Inputs, y: Tensor, check: Check) -> int:
        """Add a batch; returns its number of examples."""
        self._add_likelihood(self.model.outputs(self.values, x), y, check)
        self.matrix += ggn(self.model.outputs, self.values, x, self._fisher)
        return batch_size(x)

    def _fisher(self, outputs: Tensor) -> Tensor:
        fisher: Tensor = self.model.likelihood.fisher(outputs)  # type: ignore[attr-defined]
        return fisher

    def _add_likelihood(self, outputs: Tensor, y: Tensor, check: Check) -> None:
        components = likelihood_given(self.model.likelihood, outputs.unsqueeze(0), {}, name=self.model.name)
        check(components, y)
        self.log_likelihood += components.log_prob(y).double().sum()


class LinearCurvature(Curvature):
    """The same for weights of one linear layer that ends the network: in closed form from its inputs, no Jacobian."""

    def __init__(self, model: BNN, values: Mapping[str, Tensor], weight: str, bias: str | None) -> None:
        super().__init__(model, values)
        self.full = model.subset.put(
            parameters(model.net), {b: v for b, v in zip(model.subset.names, values.values(), strict=True)}
        )
        self.weight, self.bias = weight, bias
        sizes = {weight: self.full[weight].numel()}
        if bias is not None:
            sizes[bias] = self.full[bias].numel()
        starts = dict(zip(sizes, [0, *sizes.values()], strict=False))
        device = self.matrix.device
        self.entries = torch.cat([
            starts[block] + (torch.arange(sizes[block], device=device) if chosen is None else chosen.to(device))
            for block, chosen in model.subset.index.items()
        ])

    @torch.no_grad()
    def add(self, x: Inputs, y: Tensor, check: Check) -> int:
        """Add a batch; returns its number of examples."""
        outputs, features = linear_input(lambda: call(self.model.net, self.full, x), self.full[self.weight])
        if features is None:  # the layer is not the network's last operation
            return super().add(x, y, check)
        self._add_likelihood(outputs, y, check)
        matrix = ggn_linear(features, self._fisher(outputs), bias=self.bias is not None)
        self.matrix += matrix if len(self.entries) == len(matrix) else matrix[self.entries][:, self.entries]
        return batch_size(x)


def curvature_of(model: BNN, values: Mapping[str, Tensor]) -> Curvature:
    """The cheapest exact curvature for the model's subset."""
    blocks = model.subset.names
    for name, module in model.net.named_modules():
        prefix = name + "." if name else ""
        weight, bias = prefix + "weight", prefix + "bias"
        if isinstance(module, nn.Linear) and weight in blocks and set(blocks) <= {weight, bias}:
            return LinearCurvature(model, values, weight, bias if bias in blocks else None)
    return Curvature(model, values)
