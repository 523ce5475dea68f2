"""The part of a trained network before one of its layers, frozen: a feature extractor."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bayesnn.functional import alone, check_layers, mode_dependent


class TruncatedNetwork(nn.Module):
    """phi(x): the input of the layer `at` of a network, flattened to [batch, feature].

    `truncate` makes it.
    """

    def __init__(self, net: nn.Module, at: str, *, batch_statistics: bool = False) -> None:
        super().__init__()
        holder, _, last = at.rpartition(".")
        try:
            replaced = net.get_submodule(at)
            if not at:
                raise AttributeError
        except AttributeError:
            raise ValueError(f"truncate: {type(net).__name__} has no layer {at!r}; {_known(net, holder)}") from None
        # deepcopy takes what its memo holds already: the old head is not copied
        keep = {id(replaced): _Stop()}
        with alone():
            self.net = copy.deepcopy(net, keep)
        self.net.get_submodule(holder)._modules[last] = keep[id(replaced)]
        self.net.requires_grad_(requires_grad=False)
        self.at, self.batch_statistics = at, batch_statistics
        self._normalisations = [layer for layer in self.net.modules() if isinstance(layer, _BatchNorm)]
        self.train(mode=False)
        check_layers(mode_dependent(self.net), "truncate")

    def train(self, mode: bool = True) -> "TruncatedNetwork":
        """Stay in evaluation mode, but for batch normalisation if that was asked for."""
        super().train(mode=False)
        for layer in self._normalisations:
            layer.train(mode and self.batch_statistics)
        self.training = mode
        return self

    @torch.no_grad()
    def forward(self, *args: object, **kwargs: object) -> Tensor:
        """The features, [batch, feature], without gradients; layers after them are not run."""
        try:
            self.net(*args, **kwargs)
        except _Reached as reached:
            phi = reached.phi
        else:
            raise ValueError(
                f"truncate: the forward pass of {type(self.net).__name__} does not call {self.at!r}; name a layer that "
                "the features pass"
            )
        batch = next((len(x) for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and x.dim()), None)
        if not isinstance(phi, Tensor) or phi.dim() < 2 or (batch is not None and len(phi) != batch):
            given = f"a tensor of shape {tuple(phi.shape)}" if isinstance(phi, Tensor) else f"a {type(phi).__name__}"
            raise ValueError(
                f"truncate: {self.at!r} gets {given} for {batch} inputs, not features [batch, ...]; name a layer that "
                "one feature vector of each example passes, such as the last linear one"
            )
        return phi.flatten(1)


def truncate(net: nn.Module, at: str, *, batch_statistics: bool = False) -> TruncatedNetwork:
    """phi(x), the frozen features of a network: the input of its layer `at`, flattened to
    [batch, feature].

    A deep copy without that layer, so that nothing of the network is ever written and later
    training of it changes nothing here. No tracing: any network works whose forward pass calls the
    layer, and layers after it are not run. `truncate(resnet18(), "fc")` gives 512 features,
    `truncate(vgg11(), "classifier")` 25,088.

    Args:
        net: a trained network.
        at: name of a layer, as in `named_modules()`.
        batch_statistics: let batch normalisation follow `train()` and `eval()`: in training it
            then normalises by the batch and moves its running statistics. The published code of
            V-TST does so, though its features are called frozen. False freezes it.

    Raises:
        ValueError: no layer of that name; when called: the layer is not reached, or gets no
            features [batch, ...].

    >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> truncate(net, "2")(torch.zeros(5, 3)).shape
    torch.Size([5, 8])
    """
    return TruncatedNetwork(net, at, batch_statistics=batch_statistics)


class _Reached(Exception):
    def __init__(self, phi: object) -> None:
        super().__init__()
        self.phi = phi


class _Stop(nn.Module):
    def forward(self, *args: object, **kwargs: object) -> Tensor:
        raise _Reached(args[0] if args else next(iter(kwargs.values()), None))


def _known(net: nn.Module, holder: str) -> str:
    """The layers beside the one that does not exist, or the uppermost."""
    try:
        names = [f"{holder}.{name}" if holder else name for name, _ in net.get_submodule(holder).named_children()]
    except AttributeError:
        names = [name for name, _ in net.named_children()]
    return f"there are {', '.join(names) or 'none'}"
