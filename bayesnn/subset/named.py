"""Subsets chosen by name, module or type: whole parameters."""

import difflib

from torch import nn

from bayesnn.subset.core import Subset, shapes


def everything(net: nn.Module) -> Subset:
    """All the network's parameters."""
    return Subset(shapes(net), dict.fromkeys(shapes(net)))


def named(net: nn.Module, *names: str) -> Subset:
    """Parameters by name (`"fc.weight"`) or by the name of a module that holds them (`"layer4"`, `"fc"`).

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


def last_layer(net: nn.Module) -> Subset:
    """The parameters of the last module, in order of definition, that holds any: a classifier's output layer."""
    canonical = _canonical_names(net)
    owners = [(name, module) for name, module in net.named_modules() if list(module.parameters(recurse=False))]
    if not owners:
        return everything(net)  # raises
    name, module = owners[-1]
    prefix = name + "." if name else ""
    return Subset(shapes(net), {canonical[prefix + own]: None for own, _ in module.named_parameters(recurse=False)})


def _canonical_names(net: nn.Module) -> dict[str, str]:
    """{every name of a parameter: its first}: they differ where parameters are tied."""
    first = {id(parameter): name for name, parameter in net.named_parameters()}
    return {name: first[id(parameter)] for name, parameter in net.named_parameters(remove_duplicate=False)}


def _suggestion(name: str, net: nn.Module) -> str:
    known = [n for n, _ in net.named_parameters()] + [n for n, _ in net.named_modules() if n]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return "; did you mean " + " or ".join(repr(n) for n in near) + "?" if near else f"; it has {', '.join(known[:20])}"
