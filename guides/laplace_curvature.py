"""The curvature that a full-covariance Laplace approximation needs, summed over batches."""

from collections.abc import Mapping

import torch
from pyro import poutine
from torch import Tensor, nn
from torch.nn.functional import linear

from bayesnn.functional import Inputs, batch_size, call, ggn, ggn_linear, linear_input, parameters
from bayesnn.handlers import prefixed
from bayesnn.models import BNN
from bayesnn.models.observe import check_target


class Curvature:
    """H = sum_i J_i^T L_i J_i and sum_i log p(y_i | f(x_i; w*)), by per-example Jacobians of the random weights.

    Attributes:
        matrix: H, [param, param], in double precision: batches are many, and its small eigenvalues matter.
        log_likelihood: in nats, unscaled.
    """

    def __init__(self, model: BNN, values: Mapping[str, Tensor]) -> None:
        self.model = model
        self.values = dict(values)
        first = next(iter(values.values()))
        k = len(model.subset)
        self.matrix = torch.zeros(k, k, dtype=torch.double, device=first.device)
        self.log_likelihood = torch.zeros((), dtype=torch.double, device=first.device)

    @torch.no_grad()
    def add(self, x: Inputs, y: Tensor) -> int:
        """Add a batch; returns its number of examples."""
        self._add_likelihood(self.model.outputs(self.values, x), y)
        self.matrix += ggn(self.model.outputs, self.values, x, self._fisher, numbers=self.model.touched)
        return batch_size(x)

    def _fisher(self, outputs: Tensor) -> Tensor:
        fisher: Tensor = self.model.likelihood.fisher(outputs)  # type: ignore[attr-defined]
        return fisher

    def _add_likelihood(self, outputs: Tensor, y: Tensor) -> None:
        finite = torch.isfinite(outputs).reshape(len(outputs), -1).all(1)
        if not bool(finite.all()):
            wrong = int((~finite).nonzero()[0])
            raise ValueError(f"Laplace: the network's outputs at the mode are not finite for example {wrong}")
        with poutine.block(), poutine.trace() as traced, prefixed(self.model.name):
            distribution = self.model.likelihood(outputs)
        if latent := traced.trace.stochastic_nodes:
            raise ValueError(
                f"Laplace: the likelihood has the latent site {latent[0]!r}; give it a fixed or learned value, or use "
                "MeanField"
            )
        check_target(distribution, y)
        self.log_likelihood += distribution.log_prob(y).double().sum()


class LinearCurvature(Curvature):
    """The same for weights of one linear layer that ends the network: in closed form from its inputs, no Jacobian."""

    def __init__(self, model: BNN, values: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__(model, values)
        fixed = parameters(model.net)
        self.random = model.subset.put(fixed, dict(zip(model.subset.names, values.values(), strict=True)))
        self.weight, self.bias = prefix + "weight", prefix + "bias"
        self.layer = [{**fixed, **self.random}.get(name) for name in (self.weight, self.bias)]
        self.row, self.column = self._entries()

    @torch.no_grad()
    def add(self, x: Inputs, y: Tensor) -> int:
        """Add a batch; returns its number of examples."""
        outputs, features = self._last_operation(x)
        if features is None:
            return super().add(x, y)
        self._add_likelihood(outputs, y)
        fisher = self._fisher(outputs)
        chosen = self.model.subset.index
        if next(iter(chosen)) == self.weight and all(entries is None for entries in chosen.values()):
            self.matrix += ggn_linear(features, fisher, bias=self.bias in self.random)
        else:
            self._add_entries(features, fisher)
        return batch_size(x)

    def _last_operation(self, x: Inputs) -> tuple[Tensor, Tensor | None]:
        """The outputs and the layer's input; None in its place where the network does more with the layer's values."""
        values = {name: value.detach().requires_grad_() for name, value in self.random.items()}
        with torch.enable_grad():
            outputs, features = linear_input(lambda: call(self.model.net, values, x), values[self.weight])
        outputs = outputs.detach()
        if features is None or features.requires_grad:  # not the last operation, or not the only one
            return outputs, None
        weight, bias = self.layer
        assert weight is not None
        if features.shape[-1] != weight.shape[1] or not torch.allclose(linear(features, weight, bias), outputs):
            return outputs, None  # not a product with its transpose, or changed in place afterwards
        return outputs, features

    def _entries(self) -> tuple[Tensor, Tensor]:
        """The class and the feature of every random entry, [param] each; the bias is one more feature."""
        width = self.random[self.weight].shape[1]
        rows, columns = [], []
        for block, chosen in self.model.subset.index.items():
            entries = torch.arange(self.random[block].numel()) if chosen is None else chosen.cpu()
            rows.append(entries if block == self.bias else entries // width)
            columns.append(torch.full_like(entries, width) if block == self.bias else entries % width)
        return torch.cat(rows).to(self.matrix.device), torch.cat(columns).to(self.matrix.device)

    def _add_entries(self, features: Tensor, fisher: Tensor) -> None:
        """H[(c, a), (d, b)] = sum_i L_i[c, d] phi_i[a] phi_i[b] of the random entries alone: they may be few."""
        phi = torch.cat([features, features.new_ones(len(features), 1)], 1)[:, self.column]
        for c in self.row.unique():
            here = (self.row == c).nonzero().squeeze(1)
            self.matrix[here] += phi[:, here].T @ (fisher[:, c][:, self.row] * phi)


def curvature_of(model: BNN, values: Mapping[str, Tensor]) -> Curvature:
    """The cheapest exact curvature for the model's subset."""
    blocks = model.subset.names
    for name, module in model.net.named_modules():
        prefix = name + "." if name else ""
        only_this = set(blocks) <= {prefix + "weight", prefix + "bias"}
        if isinstance(module, nn.Linear) and only_this and prefix + "weight" in blocks:
            return LinearCurvature(model, values, prefix)
    return Curvature(model, values)
