"""Rules of whole modules, by their type: for one pass, in the place of their `forward`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.utils import _pytree as pytree

from bayesnn.moments.joint import no_covariances
from bayesnn.moments.table import Rule, rule_of, types_with_rules
from bayesnn.moments.value import Moments


@contextmanager
def using_module_rules(net: nn.Module) -> Iterator[None]:
    """Inside, the modules of a network whose types are in the table are computed by their rules.

    A module's own `forward` is shadowed on the instance, and nothing of that is left behind. Where
    the table holds no type, the network is not even looked at.
    """
    shadowed = list[nn.Module]()
    try:
        if types_with_rules():
            for module in net.modules():
                rule = _rule_of_module(module)
                if rule is not None:
                    vars(module)["forward"] = _Ruled(module, rule)
                    shadowed.append(module)
        yield
    finally:
        for module in shadowed:
            del vars(module)["forward"]


def _rule_of_module(module: nn.Module) -> Rule | None:
    """The rule of its type, or of the ancestor whose `forward` it has."""
    if "forward" in vars(module):  # one of its own
        return None
    for kind in type(module).__mro__:
        rule = rule_of(kind)
        if rule is not None or "forward" in vars(kind):
            return rule
    return None


class _Ruled:
    """A `forward` that is the rule where something is random, and the module's own elsewhere."""

    def __init__(self, module: nn.Module, rule: Rule) -> None:
        self.module, self.rule = module, rule

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        module = self.module
        held = vars(module)
        del held["forward"]  # the rule may call the module itself
        try:
            given = (*pytree.tree_leaves((args, kwargs)), *module.parameters())
            random = [leaf for leaf in given if isinstance(leaf, Moments)]
            if not random:
                return module.forward(*args, **kwargs)
            result = self.rule(module, *args, **kwargs)
            if any(leaf.joint for leaf in random) and isinstance(result, Moments) and not result.joint:
                raise no_covariances(f"the rule of {type(module).__name__}", "it returns variances alone")
            return result
        finally:
            held["forward"] = self
