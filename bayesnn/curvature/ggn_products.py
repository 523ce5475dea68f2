"""Products of a Gauss-Newton matrix with vectors, without the matrix and without a derivative of
any one example.
"""

import torch
from torch import Tensor

from bayesnn.curvature.fallback import warn_slow
from bayesnn.curvature.jacobian_rows import JacobianRows, Roots, identity
from bayesnn.functional.call import Inputs, batch_size, call
from bayesnn.functional.transforms import transformable


class GGNProducts:
    """sum_i J_i^T R_i R_i^T J_i v for every vector v, [vector, param], over the examples of one
    batch.

    J v by differentiating J^T u, which is linear in u, once more: one forward and one backward
    pass a batch, and two backward passes a vector. That is 2.5 plain training steps a vector on
    LeNet and 1.2 on an MLP of 670,000 weights in groups of ten, where rows by layers take 5.5 and
    64, and forward mode 1.9 and 2.0. Memory is that of a few passes.

    Where a layer cannot be differentiated twice (cuDNN's LSTM, some kernels of users), which the
    first batch shows, rows stand in, with a `SlowFallback` warning.

    Args:
        rows: the network, the values at which it is differentiated, and the chosen entries.

    Reference: Schraudolph (2002), Fast curvature matrix-vector products for second-order gradient
    descent.
    """

    def __init__(self, rows: JacobianRows) -> None:
        self.rows = rows
        self.twice: bool | None = None  # not known before the first batch

    def __call__(self, x: Inputs, roots: Roots, vectors: Tensor) -> Tensor:
        """The products, [vector, param], of vectors in the order of the chosen entries.

        `roots` is asked once for every example.
        """
        leaves, outputs, tangents = self._tangents(x, vectors)
        if tangents is None:
            return self._by_rows(x, roots, vectors)
        R = roots(outputs.detach(), slice(0, batch_size(x)))
        weighted = (R @ (R.mT @ tangents.flatten(2).unsqueeze(-1))).reshape(tangents.shape)
        last = len(weighted) - 1
        return torch.stack([self._back(leaves, outputs, u, keep=n < last) for n, u in enumerate(weighted)])

    def tangents(self, x: Inputs, vectors: Tensor) -> Tensor:
        """J v, [vector, batch, out], for every vector."""
        _, _, tangents = self._tangents(x, vectors)
        if tangents is not None:
            return tangents.flatten(2)
        return torch.cat([(jac @ vectors.mT).movedim(2, 0) for _, _, jac in self.rows.chunks(x, identity)], 1)

    def _tangents(self, x: Inputs, vectors: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor | None]:
        """The leaves and outputs of one pass, and J v; None where a layer has
        no second derivative.
        """
        leaves = {name: self.rows.values[name].detach().requires_grad_() for name in self.rows.index}
        with torch.enable_grad(), transformable(vectors.device):
            outputs = call(self.rows.net, leaves, x)
            return leaves, outputs, None if self.twice is False else self._forward(leaves, outputs, vectors)

    def _forward(self, leaves: dict[str, Tensor], outputs: Tensor, vectors: Tensor) -> Tensor | None:
        """J v, [vector, batch, ...]; None where a layer has no second derivative."""
        seed = torch.zeros_like(outputs, requires_grad=True)
        tangents: list[Tensor] = []
        try:
            transposed = torch.autograd.grad(
                outputs, list(leaves.values()), seed, create_graph=True, materialize_grads=True
            )  # J^T u at u = 0, as a function of u
            used = [number for number, part in enumerate(transposed) if part.requires_grad]
            for vector in vectors:
                tangent = self._full(vector)
                tangents += torch.autograd.grad(
                    [transposed[n] for n in used],
                    seed,
                    [tangent[n] for n in used],
                    retain_graph=True,
                    materialize_grads=True,
                )
        except (RuntimeError, NotImplementedError) as error:
            if not any(phrase in str(error) for phrase in ("not implemented", "derivative")):
                raise
            self._untwice(str(error))
            return None
        if self.twice is None:
            # A kernel's backward pass may simply leave no graph: J v is then wrong, and nothing
            # else tells.
            u = torch.linspace(0.5, 1.5, outputs.numel(), dtype=outputs.dtype, device=outputs.device)
            u = u.reshape(outputs.shape)
            parts = self._back(leaves, outputs, u, keep=True) * vectors[0]
            difference = float((u * tangents[0]).sum() - parts.sum())
            self.twice = abs(difference) <= 1e-3 * float(parts.norm()) + 1e-30
            if not self.twice:
                self._untwice("its backward pass leaves no graph")
                return None
        return torch.stack(tangents)

    def _untwice(self, reason: str) -> None:
        warn_slow(
            self.rows.net,
            f"Gauss-Newton products of {type(self.rows.net).__name__} by rows of the Jacobian, as a layer has no "
            f"second derivative: {reason}. They are exact, but take a pass for every output instead of two a vector.",
        )
        self.twice = False

    def _back(self, leaves: dict[str, Tensor], outputs: Tensor, cotangent: Tensor, *, keep: bool) -> Tensor:
        """J^T u, [param]."""
        gradients = torch.autograd.grad(
            outputs, list(leaves.values()), cotangent, retain_graph=keep, materialize_grads=True
        )
        parts = zip(gradients, self.rows.index.values(), strict=True)
        return torch.cat([g.flatten() if chosen is None else g.flatten()[chosen] for g, chosen in parts])

    def _full(self, vector: Tensor) -> list[Tensor]:
        """The vector's parts in tensors of the parameters' shapes, zero outside
        the chosen entries.
        """
        index, values = self.rows.index, self.rows.values
        parts = []
        for name, chosen in index.items():
            part = vector[self.rows.places[name]]
            if chosen is not None:
                part = torch.zeros_like(values[name]).flatten().index_put((chosen,), part)
            parts.append(part.reshape(values[name].shape))
        return parts

    def _by_rows(self, x: Inputs, roots: Roots, vectors: Tensor) -> Tensor:
        result = torch.zeros_like(vectors)
        for _, _, part in self.rows.chunks(x, roots):
            flat = part.flatten(0, 1)
            result += (vectors @ flat.mT) @ flat
        return result
