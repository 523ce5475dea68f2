"""The curvature of a linear last layer, in closed form from its inputs."""

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from bayesnn.curvature import JacobianRows
from bayesnn.curvature.layer_rules import Lookup, Matrix
from bayesnn.curvature.layers import forward_pass
from bayesnn.functional import Inputs
from bayesnn.guides.laplace.data_pass import BatchTargets

ROWS = 512
"""Examples that are gathered before they are multiplied: a wide layer's sums
cost more to add to than to make.
"""


class LastLayerCurvature(nn.Module):
    """sum_i L_i (x) phi_i phi_i^T, as one matrix [feature, feature] for every pair of classes
    c <= d.

    phi is the layer's input, with a constant 1 appended where the bias is random. Where L_i 1 = 0,
    as for softmax, the pairs of the last class follow from the others and are not computed.
    """

    pairs: Tensor

    def __init__(self, classes: int, width: int, like: Tensor) -> None:
        super().__init__()
        self.classes, self.width = classes, width
        # Every pair's matrix is symmetric: of four blocks of rows only what lies right of the
        # diagonal is summed.
        self._bounds = [width * block // 4 for block in range(5)] if width > 128 else [0, width]
        self.register_buffer("pairs", like.new_zeros(classes * (classes + 1) // 2, width, width), persistent=False)
        self._waiting: list[tuple[Tensor, Tensor]] = []
        # whether the last class' pairs are still to be filled
        self._lacks_last: bool | None = None

    def add(self, features: Tensor, fisher: Tensor) -> None:
        """Add features [batch, width] and L_i, [batch, class, class]."""
        self._waiting.append((features, fisher))
        if sum(len(waiting) for waiting, _ in self._waiting) >= ROWS:
            self.flush()

    def matrix(self, *, bias: bool) -> Tensor:
        """H, [param, param], in the order of a weight [class, feature] and,
        after it, a bias [class].
        """
        self.flush()
        self._fill_last()
        blocks = self.pairs.new_empty(self.classes, self.width, self.classes, self.width)
        for pair, (c, d) in enumerate(self._order()):
            whole = self.pairs[pair].triu() + self.pairs[pair].triu(1).mT
            blocks[c, :, d] = whole
            blocks[d, :, c] = whole
        flat = blocks.reshape(self.classes * self.width, -1)
        if not bias:
            return flat
        grid = torch.arange(len(flat), device=flat.device).reshape(self.classes, self.width)
        order = torch.cat([grid[:, :-1].reshape(-1), grid[:, -1]])
        return flat[order][:, order]

    def _order(self) -> list[tuple[int, int]]:
        return [(c, d) for c in range(self.classes) for d in range(c, self.classes)]

    def flush(self) -> None:
        """Add the batches that were gathered."""
        if not self._waiting:
            return
        features = torch.cat([f for f, _ in self._waiting])
        fisher = torch.cat([f for _, f in self._waiting])
        self._waiting = []
        null = self.classes > 1 and bool(fisher.sum(-1).abs().amax() <= 1e-5 * fisher.abs().amax())
        if self._lacks_last is None:
            self._lacks_last = null
        if not null:
            self._fill_last()
        for pair, (c, d) in enumerate(self._order()):
            if not (self._lacks_last and d == self.classes - 1):
                weighted = (features * fisher[:, c, d, None]).mT
                for a, b in pairwise(self._bounds):
                    self.pairs[pair, a:b, a:] += weighted[a:b] @ features[:, a:]

    def _fill_last(self) -> None:
        """The pairs of the last class, from L_i 1 = 0."""
        if not self._lacks_last:
            return
        self._lacks_last, last = False, self.classes - 1
        ends = self.pairs.new_zeros(self.classes, self.width, self.width)
        for pair, (c, d) in enumerate(self._order()):
            if d < last:
                ends[c] -= self.pairs[pair]
                if d != c:
                    ends[d] -= self.pairs[pair]
        ends[last] = -ends[:last].sum(0)
        for pair, (c, d) in enumerate(self._order()):
            if d == last:
                self.pairs[pair] = ends[c]


def last_layer_inputs(rows: JacobianRows, x: Inputs) -> tuple[Tensor, Tensor] | None:
    """The outputs [batch, class] and features [batch, feature] (with a 1 for a random bias), or
    None.

    None where the random weights are not those of one linear layer, whole, that is the network's
    very last operation.
    """
    blocks: Mapping[str, Tensor | None] = rows.index
    if len(blocks) > 2 or any(chosen is not None for chosen in blocks.values()):
        return None
    done = forward_pass(rows.net, rows.values, x)
    layers = done.layers()
    if done.unknown or len(layers) != 1 or not isinstance(use := layers[0], Matrix) or isinstance(use, Lookup):
        return None
    roles = [use.roles.get(name) for name in blocks]
    last = done.outputs.dim() == 2 and done.outputs.grad_fn is use.place.edge.node
    if not last or roles not in (["weight"], ["weight", "bias"]) or use.tensors["weight"].dim() != 2:
        return None
    features = use.inputs  # of a matrix whose rows are the outputs' rows
    if len(roles) == 2:
        features = torch.cat([features, features.new_ones(len(features), 1)], 1)
    return done.outputs.detach(), features


def add_last_layer(
    sums: LastLayerCurvature | None, rows: JacobianRows, x: Inputs, targets: BatchTargets, dtype: torch.dtype
) -> LastLayerCurvature | None:
    """The sums with a batch added; None where there is no such layer, and
    nothing was handed to `targets`.
    """
    layer = last_layer_inputs(rows, x)
    if layer is None:
        return None
    outputs, features = layer
    if sums is None:
        sums = LastLayerCurvature(outputs.shape[1], features.shape[1], features.to(dtype))
    sums.add(features, targets.fisher(outputs))
    return sums
