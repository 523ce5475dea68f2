"""Kronecker-factored curvature: one factor for a layer's inputs, one for the
derivatives in its outputs.
"""

import math
from collections.abc import Mapping
from typing import TypeGuard

import torch
from torch import Tensor

from bayesnn.curvature.fallback import NoRule
from bayesnn.curvature.jacobian_rows import JacobianRows, one_position
from bayesnn.curvature.layer_rules import Lookup, Matrix, Use
from bayesnn.curvature.layers import Pass
from bayesnn.functional import Inputs, memory
from bayesnn.guides.laplace.data_pass import BatchTargets
from bayesnn.guides.laplace.rotated import Basis
from bayesnn.guides.laplace.separable import Separable
from bayesnn.models import BNN

DENSE = 1024
"""Biases and scales of normalisations have a full block up to this length, and
a diagonal one above.
"""


class Kronecker(Separable):
    """H of a weight ~ A (x) B / N with A = sum a a^T over the layer's inputs and B = sum g g^T
    over its derivatives.

    Sums are over examples and positions, N of them in all (KFAC in its "expand" form); g = d f^T
    R_i / d (the layer's output), summed over the columns of R_i. Exact for one example and one
    position, or where inputs and derivatives are independent. Biases and the scales of
    normalisations have exact blocks of their own, without N.

    Linear layers, convolutions (their groups are independent), embeddings, attention projections.
    A weight that is used several times counts as one with more positions.

    Raises:
        ValueError: a weight only some of whose entries are random; a layer without a rule, or
            whose batch axis is not found (named); a weight shared by an embedding and a linear
            layer; a prior with several scales inside one block.

    Reference: Martens and Grosse (2015); Grosse and Martens (2016) for convolutions; Eschenhagen,
    Immer, Turner, Schneider, Hennig (2023) for shared weights.
    """

    def __init__(self, model: BNN, rows: JacobianRows) -> None:
        super().__init__(model, rows)
        partial = [name for name, chosen in rows.index.items() if chosen is not None]
        if partial:
            raise ValueError(
                f"Kronecker: only some entries of {partial[0]!r} are random, which have no Kronecker factors; use Full "
                "or Diagonal, or make the whole tensor random"
            )
        self._bases: dict[str, Basis] | None = None

    def add(self, x: Inputs, targets: BatchTargets) -> None:
        """Add one batch."""
        self._bases = None
        done = self._pass(x)
        if not self._buffers:
            _require_memory(done)
        outputs = done.outputs.detach()
        R = targets.roots(outputs).reshape(*outputs.shape, -1)
        for name, uses in done.uses.items():
            for use in uses:
                if _is_weight(use, name):
                    inputs, count = _inputs(use)
                    self._add(name, "inputs", inputs)
                    self._add(name, "count", count)
        twins = {name: self._twin(name, done) for name in done.uses}
        for column in range(R.shape[-1]):
            gradients = done.back(R[..., column], last=column == R.shape[-1] - 1)
            for name, uses in done.uses.items():
                weights = [use for use in uses if _is_weight(use, name)]
                if len(weights) == len(uses):
                    for use in weights:
                        self._add(name, "outputs", _outputs(use, gradients[id(use)]))
                elif (weight := twins[name]) is None:
                    self._add_block(name, uses, gradients)
                else:
                    # its block is the weight's factor: one tensor for both, which has one
                    # decomposition
                    self._buffers[_key(name, "block")] = self._buffers[_key(weight, "outputs")]

    def bases(self) -> Mapping[str, Basis]:
        """The factors' eigenvectors."""
        if self._bases is None:
            known: dict[int, tuple[Tensor, Tensor]] = {}
            self._bases = {name: self._basis(name, value, known) for name, value in self.rows.values.items()}
        return self._bases

    def _pass(self, x: Inputs) -> Pass:
        """The pass over a batch, every layer of which has factors."""
        remedy = "use Diagonal, Full on a subset, or leave it out: everything(net) - named(net, ...)"
        try:
            done = self.rows.settled(x)
        except NoRule as refused:
            raise ValueError(f"Kronecker: there is no Kronecker factor for {refused}; {remedy}") from None
        for name, uses in done.uses.items():
            kinds = {isinstance(use, Lookup) if _is_weight(use, name) else None for use in uses}
            if len(kinds) > 1:
                raise ValueError(
                    f"Kronecker: {name!r} is used in several ways, as by an embedding and by a linear layer, which "
                    f"have no factors in common; {remedy}"
                )
        return done

    def _twin(self, name: str, done: Pass) -> str | None:
        """The weight whose factor is the block of this bias, in this batch and
        in all before; else the two part.
        """
        weight, block = _twin(name, done), self._sum(name, "block")
        if block is None or (weight is not None and block is self._sum(weight, "outputs")):
            return weight
        if any(block is held for key, held in self._buffers.items() if key != _key(name, "block")):
            self._buffers[_key(name, "block")] = block.clone()
        return None

    def _add(self, name: str, what: str, value: Tensor) -> None:
        key = _key(name, what)
        value = value if value.is_floating_point() and value.numel() > DENSE**2 else value.double()
        held = self._buffers.get(key)
        if held is None:
            self.register_buffer(key, value)
        else:
            held += value

    def _sum(self, name: str, what: str) -> Tensor | None:
        return self._buffers.get(_key(name, what))

    def _add_block(self, name: str, uses: list[Use], gradients: dict[int, Tensor]) -> None:
        """The exact block of a bias or of a normalisation's scale."""
        g = sum((use.gradients(use.roles[name], gradients[id(use)]).flatten(1) for use in uses), torch.zeros(()))
        if g.shape[1] > DENSE:
            self._add(name, "diagonal", g.square().sum(0))
        else:
            self._add(name, "block", g.mT @ g)

    def _basis(self, name: str, value: Tensor, known: dict[int, tuple[Tensor, Tensor]]) -> Basis:
        def eigen(matrix: Tensor) -> tuple[Tensor, Tensor]:
            """Once for each matrix: a bias may share that of its weight."""
            if id(matrix) not in known:
                values, vectors = torch.linalg.eigh(matrix.to(value.dtype))
                known[id(matrix)] = values.clamp(min=0).double(), vectors
            return known[id(matrix)]

        inputs, outputs, block = (self._sum(name, what) for what in ("inputs", "outputs", "block"))
        if inputs is not None and outputs is not None:
            count = self._sum(name, "count")
            assert count is not None
            left, rows = eigen(outputs)
            if inputs.dim() == 1:  # how often an embedding, [word, out], looked up each word
                return Basis(value.shape, inputs.unsqueeze(-1) * left.unsqueeze(-2) / count, None, rows)
            right, columns = eigen(inputs)
            return Basis(value.shape, left.unsqueeze(-1) * right.unsqueeze(-2) / count, rows, columns)
        if block is not None:
            values, vectors = eigen(block)
            return Basis(value.shape, values.reshape(1, 1, -1), None, vectors.reshape(1, *vectors.shape[-2:]))
        diagonal = self._sum(name, "diagonal")
        values = torch.zeros(value.numel(), dtype=torch.double, device=value.device) if diagonal is None else diagonal
        return Basis(value.shape, values.reshape(1, 1, -1))


def _require_memory(done: Pass) -> None:
    """Refuse factors that are too large, naming the largest."""
    sizes = {}
    for name, uses in done.uses.items():
        if _is_weight(use := uses[0], name) and not isinstance(use, Lookup):
            out, *rest = use.tensors["weight"].shape
            inputs = math.prod(rest)
            # sums, eigenvectors, and the room to find them
            sizes[name] = 8 * 3 * (inputs**2 + out**2)
    if sizes:
        largest = max(sizes, key=sizes.__getitem__)
        memory.require(
            sum(sizes.values()),
            done.outputs.device,
            f"Kronecker: the set of all factors, {sizes[largest] / 2**30:,.1f} GiB of it for {largest!r},",
            f"leave that layer out, everything(net) - named(net, {largest!r}), or use Diagonal",
        )


def _key(name: str, what: str) -> str:
    """The name of a buffer, which may have no dots."""
    return f"{name}:{what}".replace(".", "/")


def _twin(name: str, done: Pass) -> str | None:
    """The weight whose layer, with one position, has this bias and nothing
    else: both see the same derivatives.
    """
    uses = done.uses[name]
    if len(uses) != 1 or len(uses[0].roles) != 2:
        return None
    weight = next(other for other in uses[0].roles if other != name)
    alone = len(done.uses[weight]) == 1 and one_position(uses[0], weight)
    return weight if alone and uses[0].roles[name] == "bias" else None


def _is_weight(use: Use, name: str) -> TypeGuard[Matrix]:
    return isinstance(use, Matrix) and use.roles[name] == "weight"


def _inputs(use: Matrix) -> tuple[Tensor, Tensor]:
    """sum a a^T over examples and positions, [group, in, in], and their number; of an embedding
    its diagonal, [in].
    """
    if isinstance(use, Lookup):
        words = use.index[use.index != use.padding] if use.padding is not None else use.index
        return torch.bincount(words.flatten(), minlength=len(use.tensors["weight"])), torch.tensor(words.numel())
    gram, count = use.gram(use.inputs)
    return gram, torch.tensor(count)


def _outputs(use: Matrix, g: Tensor) -> Tensor:
    """sum g g^T over examples and positions, [group, out, out]."""
    return use.gram(use.cotangent(g).squeeze(2) if isinstance(use, Lookup) else use.arrange(g))[0]
