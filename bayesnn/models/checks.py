"""What every model refuses, in one wording."""

from collections.abc import Mapping

from torch import Tensor, nn

from bayesnn.handlers import SurroundingPlates, traced_before


def checked_size(owner: str, size: int | None) -> int | None:
    """The number of training examples as an int, or None.

    Raises:
        ValueError: below 1, or no whole number.
    """
    if size is not None and (size != int(size) or size < 1):
        raise ValueError(f"{owner}: size is the number of training examples, a positive integer or None, not {size!r}")
    return size if size is None else int(size)


def check_name(owner: str, name: str) -> None:
    """Refuse a prefix of sites that ArviZ refuses."""
    if "/" in name:
        raise ValueError(f"{owner}: the name {name!r} has a '/', which ArviZ refuses; use another sign")


def check_outside(plates: SurroundingPlates, owner: str, what: str) -> None:
    """Refuse a call inside a plate at dim -1, where the examples belong and
    `what` all share would be one each.
    """
    if plates.innermost:
        raise ValueError(
            f"{owner}: {what} shared by all examples, but the model was called inside the plate {plates.innermost!r} "
            "at dim -1; call it before that plate opens. Where Pyro opened it, for particles or draws, observe y in a "
            "plate at dim -1 or give the ELBO max_plate_nesting=1"
        )


def check_rest_constant(net: nn.Module, index: Mapping[str, Tensor | None]) -> None:
    """Refuse a model that announces parameters for training which the network's call holds
    constant.

    Args:
        net: the network.
        index: {name: which of its entries are random; None = all} of the random parameters.
    """
    constant = {id(parameter): name for name, parameter in net.named_parameters() if index.get(name, net) is not None}
    for site, node in traced_before():
        name = constant.get(id(node["value"])) if node["type"] == "param" else None
        if name is not None:
            raise ValueError(
                f"BNN: the model trains {site!r}, which is {name!r} of this network, but a BNN holds constant what is "
                "not random, and gives it no gradient; make a BNN of the random part alone, and call the trained one "
                "before it: pyro.module('body', body); head.sample(body(x))"
            )


def minibatch_scale(size: int | None, batch: int) -> float:
    """size / batch, by which a batch's log likelihood is scaled; 1 where the batch is all data.

    Raises:
        ValueError: a batch larger than all data.
    """
    if size is None:
        return 1.0
    if size < batch:
        raise ValueError(f"size = {size} examples of training data were announced, but one batch has {batch}")
    return size / batch
