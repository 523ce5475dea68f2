"""Means and variances of a network's outputs, from those of its weights."""

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from bayesnn.functional import alone
from bayesnn.functional.call import Inputs, batch_size, call, chunks, tensors
from bayesnn.moments.joint_products import BEGINNINGS
from bayesnn.moments.modules import using_module_rules
from bayesnn.moments.table import using_moment_rules
from bayesnn.moments.uses import Uses
from bayesnn.moments.value import Moments

_HALF = (torch.float16, torch.bfloat16)


def propagate_moments(
    net: nn.Module, values: Mapping[str, Tensor], x: Inputs, *, chunk: int | None = None, covariance: bool = False
) -> Moments:
    """E and Var of f(x; w) for independent random weights w, in one pass through the unchanged
    network.

    Every operation, or module of a type with a rule, turns means and variances into others
    (`MOMENT_RULES`); covariances between units are left out (assumed density filtering). A single
    linear layer is exact, and so is the mean of a network of linear layers; with variances of 0
    the mean is the network itself.

    Half precision is computed in float32, since squares of halves overflow at 256; autocast is off
    inside.

    Args:
        net: any network whose operations have rules; it is not written to.
        values: {parameter name: `Moments`, or a tensor for one that is certain}; others keep the
            network's own.
        x: inputs, certain.
        chunk: examples in one pass; all by default.
        covariance: keep the covariances between the units of one example from the first linear
            layer with random inputs on, by `COVARIANCE_RULES`. The result is then `JointMoments`,
            or `Moments` where a network ends before, whose units are independent. Behind that
            layer an operation without such a rule (a convolution, a pooling) is refused; in front
            of it, it goes by variances alone.

    Raises:
        NotImplementedError: an operation without a rule; it names its place and what to do.
        RepeatedUse: a random entry of a parameter that is used twice in one pass (tied weights, a
            layer at two places), whose uses are correlated; it is a `NotImplementedError` too.
        TypeError: no weight is random, or the network's outputs do not depend on one that is.

    References: Minka (2001), for assumed density filtering; Schmitt, Roth (2021); with covariances
    Wu, Nowozin, Meeds, Turner, Hernández-Lobato, Gaunt (2019).

    >>> net = nn.Sequential(nn.Linear(2, 1, bias=False), nn.ReLU())
    >>> weight = Moments(torch.tensor([[1.0, 1.0]]), torch.tensor([[0.5, 0.5]]))
    >>> propagate_moments(net, {"0.weight": weight}, torch.tensor([[1.0, -1.0]]))    # relu of N(0, 1)
    Moments(loc=tensor([[0.3989]]), variance=tensor([[0.3408]]))
    """
    halves = any(tensor.dtype in _HALF for tensor in [*net.parameters(), *net.buffers(), *tensors(x)])
    if halves:
        own = {name: parameter.detach() for name, parameter in net.named_parameters()}
        values = {name: value.float() if value.dtype in _HALF else value for name, value in {**own, **values}.items()}
        x = pytree.tree_map_only(Tensor, lambda leaf: leaf.float() if leaf.dtype in _HALF else leaf, x)
    device = next(iter(values.values())).device.type if values else "cpu"
    joint = using_moment_rules(BEGINNINGS) if covariance else nullcontext()
    with alone(), torch.autocast(device, enabled=False), joint, using_module_rules(net):
        parts = chunks(x, chunk or batch_size(x))
        outputs: Tensor = torch.cat([_one_pass(net, values, part) for part in parts])
    if not isinstance(outputs, Moments):
        raise TypeError(
            f"moments: the outputs of {type(net).__name__} depend on no random weight; choose another subset"
        )
    return outputs


def _one_pass(net: nn.Module, values: Mapping[str, Tensor], x: Inputs) -> Tensor:
    """The outputs for inputs that go through together, every use of a parameter counted."""
    batch = batch_size(x)
    for name, value in values.items():
        if isinstance(value, Moments):
            value.is_weight, value.uses = True, Uses(name, value.variance, batch)
    outputs = call(net, values, x)
    if isinstance(outputs, Moments):
        outputs.words = outputs.uses = None  # nothing that is joined now belongs to a later pass
    return outputs
