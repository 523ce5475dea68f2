"""Subsets chosen by name, module or type: whole parameters."""

import difflib

from torch import nn

from bayesnn.curvature import forward_pass
from bayesnn.functional import Inputs, parameters
from bayesnn.subset.core import Subset, shapes


def everything(net: nn.Module) -> Subset:
    """All the network's parameters."""
    return Subset(shapes(net), dict.fromkeys(shapes(net)))


def named(net: nn.Module, *names: str) -> Subset:
    """Parameters by name (`"fc.weight"`) or by the name of a module that holds them (`"layer4"`,
    `"fc"`).

    Raises:
        ValueError: a name matches nothing; the nearest names are suggested.

    >>> named(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)), "2").names
    ('2.weight', '2.bias')
    """
    if not names:
        raise ValueError("named: give at least one name of a parameter or module")
    canonical = _canonical_names(net)
    index: dict[str, None] = {}
    for name in names:
        chosen = [own for alias, own in canonical.items() if alias == name or alias.startswith(name + ".")]
        if not chosen:
            raise ValueError(f"named: the network has no parameter or module {name!r}{_suggestion(name, net)}")
        index.update(dict.fromkeys(chosen))
    return Subset(shapes(net), index)


def of_type(net: nn.Module, *types: type[nn.Module]) -> Subset:
    """All parameters of the modules of the given types, for example `of_type(net, nn.Linear)`."""
    canonical = _canonical_names(net)
    index: dict[str, None] = {}
    for name, module in net.named_modules():
        if isinstance(module, types):
            prefix = name + "." if name else ""
            index.update({canonical[prefix + own]: None for own, _ in module.named_parameters()})
    if not index:
        wanted = ", ".join(kind.__name__ for kind in types)
        owners = {type(module).__name__ for module in net.modules() if list(module.parameters(recurse=False))}
        present = ", ".join(sorted(owners))
        raise ValueError(f"of_type: no module of type {wanted} has parameters; modules with parameters are {present}")
    return Subset(shapes(net), index)


def last_layer(net: nn.Module, *, x: "Inputs | None" = None) -> Subset:
    """The parameters of the network's last layer: a classifier's output layer.

    Without `x` it is the last module, *in order of definition*, that holds parameters. A network
    alone does not show what it calls last: where `__init__` defines the head before the body, that
    is a layer of the body. With `x` the network is called, in its present mode, and the last layer
    in order of use is taken, of those that the outputs depend on.

    Args:
        net: the network.
        x: inputs of a few examples.

    Raises:
        ValueError: with `x`, the outputs depend on no parameter.

    >>> import torch
    >>> class HeadFirst(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.head, self.body = nn.Linear(4, 2), nn.Linear(3, 4)
    ...     def forward(self, x):
    ...         return self.head(self.body(x).tanh())
    >>> last_layer(HeadFirst()).names, last_layer(HeadFirst(), x=torch.zeros(1, 3)).names
    (('body.weight', 'body.bias'), ('head.weight', 'head.bias'))
    """
    canonical = _canonical_names(net)
    owners = [
        [canonical[f"{name}.{own}" if name else own] for own, _ in module.named_parameters(recurse=False)]
        for name, module in net.named_modules()
    ]
    owners = [names for names in owners if names]
    if not owners:
        return everything(net)  # raises
    if x is None:
        return Subset(shapes(net), dict.fromkeys(owners[-1]))
    used = set(_used_last(net, x))
    holders = [names for names in owners if used <= set(names)]
    return Subset(shapes(net), dict.fromkeys(holders[-1] if holders else [n for n in canonical.values() if n in used]))


def _used_last(net: nn.Module, x: Inputs) -> tuple[str, ...]:
    """The parameters that the last call of a function took, of those that the
    outputs depend on.
    """
    done = forward_pass(net, parameters(net), x)
    depends = done.depends_on()
    for names in reversed(done.calls):
        if kept := tuple(name for name in names if name in depends):
            return kept
    raise ValueError("last_layer: the network's outputs for these inputs depend on no parameter")


def _canonical_names(net: nn.Module) -> dict[str, str]:
    """{every name of a parameter: its first}: they differ where parameters are tied."""
    first = {id(parameter): name for name, parameter in net.named_parameters()}
    return {name: first[id(parameter)] for name, parameter in net.named_parameters(remove_duplicate=False)}


def _suggestion(name: str, net: nn.Module) -> str:
    known = [n for n, _ in net.named_parameters()] + [n for n, _ in net.named_modules() if n]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return "; did you mean " + " or ".join(repr(n) for n in near) + "?" if near else f"; it has {', '.join(known[:20])}"
