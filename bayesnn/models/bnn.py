"""A network some of whose weights are random: the plain Pyro model that
everything else starts from.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Size, Tensor, nn
from torch.utils import _pytree as pytree

from bayesnn.functional import (
    Inputs,
    batch_size,
    call,
    call_chunks,
    check_evaluation_mode,
    check_layers,
    map_draws,
    mode_dependent,
    parameters,
    worth_vectorising,
)
from bayesnn.handlers import SurroundingPlates, plates_here, prefix_of, prefixed
from bayesnn.likelihoods import Likelihood
from bayesnn.models.checks import check_name, check_outside, check_rest_constant, checked_size
from bayesnn.models.each_draw import for_each_draw
from bayesnn.models.inputs import axes_of_draws, check_inputs
from bayesnn.models.observe import observe
from bayesnn.priors import Prior
from bayesnn.scales import moved
from bayesnn.subset import Subset
from bayesnn.subset.core import table


class BNN(nn.Module):
    """w_S ~ prior; y_i ~ likelihood(f(x_i; w_S, w_rest)): a Bayesian network as a Pyro model.

    `model(x, y)` samples one site for each random block, named as the parameter, calls the
    untouched network with them, and observes y in a plate "data". It is an `nn.Module` that owns
    the *learned generative* parameters of the prior and the likelihood (a learned noise scale) and
    never the network's: `model.parameters()` has none of those.

    Works with SVI, NUTS (several chains), `Predictive` in both modes and vectorised particles. As
    a component of a larger model use `model.sample(x)`, which observes nothing, and give each
    network a `name`.

    Args:
        net: the network, in evaluation mode; neither its weights nor its buffers nor its flags are
            ever written.
        subset: which of its scalars are random.
        prior: (parameter name, present value) -> distribution of that block.
        likelihood: outputs [*draw, batch, ...] -> distribution of y.
        size: examples in the training data: the log likelihood of a batch is scaled by
            size / batch. None = every call gets all data, as with NUTS.
        name: prefixes sites and plate with `name + "."`.

    Shapes: x [batch, ...] (a tensor, a tuple for several inputs, or a dict for
    keywords) -> outputs [batch, out].

    Raises:
        ValueError: an empty subset, or one of another network; a train-mode BatchNorm or Dropout;
            a prior of the wrong shape; inputs or targets that are not finite or do not fit (it
            says where); a size below 1.

    >>> from bayesnn import likelihoods, priors, subset
    >>> net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    >>> model = BNN(net, subset.last_layer(net), priors.normal(1.0), likelihoods.normal(0.1), size=100)
    >>> model(torch.zeros(5, 3), torch.zeros(5, 1)).shape
    torch.Size([5, 1])
    """

    def __init__(
        self,
        net: nn.Module,
        subset: Subset,
        prior: Prior,
        likelihood: Likelihood,
        *,
        size: int | None = None,
        name: str = "",
    ) -> None:
        super().__init__()
        if not len(subset):
            raise ValueError("BNN: the subset is empty, so nothing is random")
        self.size = checked_size("BNN", size)
        check_name("BNN", name)
        check_evaluation_mode(net, "BNN")
        subset.take(net)  # raises for a subset of another network
        self._mode_dependent = (mode_dependent(net),)
        # in a tuple: a sub-module's parameters would be trained with the guide's
        self._net = (net,)
        self.subset = subset
        self.prior = prior
        self.likelihood = likelihood
        self.name = name
        self.local: frozenset[str] = frozenset()
        like = next(net.parameters())
        self.to(device=like.device, dtype=like.dtype)

    @property
    def net(self) -> nn.Module:
        """The user's network."""
        return self._net[0]

    @property
    def sites(self) -> dict[str, Size]:
        """{site name: event shape} of the random blocks, in the network's order."""
        return {prefix_of(self.name) + block: self.subset.event_shape(block) for block in self.subset.names}

    @property
    def touched(self) -> int:
        """How many numbers the parameters with random entries have in all: the length of one
        output's gradient.
        """
        return sum(self.subset.shape[block].numel() for block in self.subset.names)

    def values(self) -> dict[str, Tensor]:
        """{site name: what the network holds there now} (clones): the
        pretrained point, where guides start.
        """
        return {prefix_of(self.name) + block: value for block, value in self.subset.take(self.net).items()}

    def outputs(self, values: Mapping[str, Tensor], x: Inputs) -> Tensor:
        """f(x; values), [batch, ...]: stateless, without Pyro, differentiable in the values.

        Args:
            values: {site name: [*event]}; further entries, of other sites, are ignored.
            x: inputs.
        """
        return call(self.net, self._full(values), x)

    def outputs_of_chunks(self, values: Mapping[str, Tensor], parts: Sequence[Inputs]) -> Tensor:
        """f at consecutive parts of one set of inputs, joined; the values are
        put into the network once.
        """
        return call_chunks(self.net, self._full(values), parts)

    def sample(self, x: Inputs, *, event_dim: int | None = None) -> Tensor:
        """Draw the random blocks from the prior's sites and return the outputs; observes nothing.

        Args:
            x: inputs; they may depend on latent sites. Draw s of the weights meets draw s of the
                inputs.
            event_dim: axes of one example in each tensor of x, [*draw, batch, *event]. By default
                those axes on the left that are as many and as long as Pyro's plates of particles
                or draws are taken for draws, if a site outside this network has them too; all
                others are the batch and an example. An input with an axis of parallel enumeration,
                or with examples of no axis, needs it.

        Returns:
            [batch, out], with the axes of particles or draws before them where Pyro vectorises.
        """
        check_layers(self._mode_dependent[0], "BNN")
        check_inputs(x)
        return self.sample_network()(x, event_dim=event_dim)

    def sample_network(self) -> "SampledNetwork":
        """Draw the random blocks once: a function x -> outputs, to be called as often as the model
        needs it.

        Siamese networks, rankings and differences use one draw at several inputs:

            f = model.sample_network()
            difference = f(a) - f(b)
        """
        check_layers(self._mode_dependent[0], "BNN")
        check_rest_constant(self.net, self.subset.index)
        values, plates = self._drawn()
        check_outside(plates, "BNN", "its weights are")
        return SampledNetwork(self, values, plates)

    def forward(self, x: Inputs, y: Tensor | None = None) -> Tensor:
        """Sample, then observe y (without y: sample it at the site "y"). Returns the outputs."""
        outputs = self.sample(x)
        observe(outputs, self.likelihood, y, size=self.size, name=self.name)
        return outputs

    def with_prior(self, prior: Prior) -> "BNN":
        """The same model under another prior."""
        return BNN(self.net, self.subset, prior, self.likelihood, size=self.size, name=self.name)

    def with_likelihood(self, likelihood: Likelihood) -> "BNN":
        """The same model under another likelihood."""
        return BNN(self.net, self.subset, self.prior, likelihood, size=self.size, name=self.name)

    def __str__(self) -> str:
        """A table of the random blocks and their prior, then the likelihood."""
        rows = [
            (site, str(tuple(self.subset.shape[block])), f"{self.subset.count(block):,}", described(self.prior))
            for site, block in zip(self.sites, self.subset.names, strict=True)
        ]
        rows.append(("all blocks", "", f"{len(self.subset):,}", ""))
        header = f"BNN of {type(self.net).__name__}, likelihood {described(self.likelihood)}, size {self.size}"
        return header + "\n" + table(("block", "shape", "random", "prior"), rows)

    def sample_blocks(self) -> dict[str, Tensor]:
        """Draw the random blocks, {site: value}, and nothing that depends on data."""
        return self._drawn()[0]

    def _drawn(self) -> tuple[dict[str, Tensor], SurroundingPlates]:
        """The random blocks, and the plates around them without those that a prior opens."""
        prefix = prefix_of(self.name)
        held = parameters(self.net)
        values, inside = {}, SurroundingPlates()
        priors: list[Any] = []
        depth = plates_here().depth
        for block in self.subset.names:
            chosen = self.subset.index[block]
            value = held[block] if chosen is None else held[block].reshape(-1)[chosen.to(held[block].device)]

            def make(draw: int | None, value: Tensor = value, block: str = block) -> dist.TorchDistribution:
                with prefixed(self.name):
                    # A clone: where a user's prior is centred at it, a guide that starts there
                    # would train the network.
                    priors.append(self.prior(block, value.clone()))
                return _over(priors[-1], value, block)

            over = for_each_draw(make, depth)
            with inside:
                values[prefix + block] = pyro.sample(prefix + block, over)
            if over.batch_shape[: len(over.batch_shape) - inside.depth].numel() > 1:
                raise ValueError(f"{_misfit(priors[-1], value, block)}; only plates make axes on its left")
        return values, inside

    def _full(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Full tensors of the parameters with random entries."""
        prefix = prefix_of(self.name)
        lacking = [prefix + block for block in self.subset.names if prefix + block not in values]
        if lacking:
            raise ValueError(
                f"BNN: no value of {lacking[0]!r}, which is random; there are {', '.join(values) or 'none'}"
            )
        return self.subset.put(parameters(self.net), {block: values[prefix + block] for block in self.subset.names})


class SampledNetwork:
    """A network with weights that were drawn once, x -> outputs: what
    `BNN.sample_network` returns.
    """

    def __init__(self, model: BNN, values: dict[str, Tensor], plates: SurroundingPlates) -> None:
        self.model, self.values, self.plates = model, values, plates

    def __call__(self, x: Inputs, *, event_dim: int | None = None) -> Tensor:
        """The outputs at x, [*draw, batch, out]; arguments as in `BNN.sample`.

        Values may have axes of particles, draws or plates on their left, [*lead, *event]. Inside
        plates the last of those axes is that of the data plate, where a global value has size 1
        and the outputs their batch. `Predictive(parallel=True)` leaves such axes of size 1 out, on
        the right.
        """
        check_inputs(x)
        depth, sites = self.plates.depth, self.model.sites
        leads = [self.values[site].shape[: self.values[site].dim() - len(shape)] for site, shape in sites.items()]
        leads = [lead + (1,) * (depth - len(lead)) for lead in leads]
        lead = torch.broadcast_shapes(*leads)
        before = lead[:-1] if depth else lead
        leaves, structure = pytree.tree_flatten(x)
        carried = {i: axes for i, leaf in enumerate(leaves) if (axes := axes_of_draws(leaf, self.plates, event_dim))}
        joint = torch.broadcast_shapes(before, *(leaves[i].shape[:axes] for i, axes in carried.items()))
        if not joint:
            return self.model.outputs(self.values, x)
        flat = {
            site: self.values[site].reshape(own[: len(before)] + shape).expand(joint + shape).reshape((-1, *shape))
            for (site, shape), own in zip(sites.items(), leads, strict=True)
        }
        for i, axes in carried.items():
            shape = leaves[i].shape[axes:]
            flat[f"input {i}"] = leaves[i].expand(joint + shape).reshape((-1, *shape))

        def one(draw: dict[str, Tensor]) -> Tensor:
            inputs = [draw[f"input {i}"] if i in carried else leaf for i, leaf in enumerate(leaves)]
            return self.model.outputs(draw, pytree.tree_unflatten(inputs, structure))

        examples = next((leaves[i].shape[axes] for i, axes in carried.items()), None) or batch_size(x)
        vectorised = worth_vectorising(len(self.model.subset), examples, next(iter(flat.values())).device)
        outputs = map_draws(one, flat, vectorised=vectorised)
        return outputs.reshape(joint + outputs.shape[1:])


def _over(prior: Any, value: Tensor, block: str) -> dist.TorchDistribution:
    """The prior as one event of the block's shape, with the axes of latent scales on its left."""
    if not isinstance(prior, TorchDistributionMixin):
        kind = f"{type(prior).__module__}.{type(prior).__name__}"
        raise TypeError(f"prior of {block!r}: a distribution of pyro.distributions is needed, not {kind}")
    independent = value.dim() - prior.event_dim
    own = value.shape[:independent] if independent >= 0 else None
    try:
        if own is None or value.shape[independent:] != prior.event_shape:
            raise ValueError
        # The first case is the usual one: torch.broadcast_shapes takes 35 us.
        batch = own if not prior.batch_shape else torch.broadcast_shapes(prior.batch_shape, own)
        if batch[len(batch) - independent :] != own:
            raise ValueError
    except (ValueError, RuntimeError):
        raise ValueError(_misfit(prior, value, block)) from None
    # A user's own prior, Normal(0.0, 1.0), may live on another device or in another precision than
    # the network.
    return moved(prior, value).expand(batch).to_event(independent)


def _misfit(prior: dist.TorchDistribution, value: Tensor, block: str) -> str:
    return (
        f"prior of {block!r}: its shape {tuple(prior.batch_shape)} + {tuple(prior.event_shape)} does not broadcast to "
        f"the block's {tuple(value.shape)}"
    )


def described(part: object) -> str:
    """A prior or a likelihood in one line."""
    if isinstance(part, nn.Module):  # one line: without the sub-modules of repr
        return f"{type(part).__name__}({part.extra_repr()})"
    return getattr(part, "__name__", type(part).__name__)
