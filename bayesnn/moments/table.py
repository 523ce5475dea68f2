"""{torch function or type of a module: its moment rule}, and what happens where there is none."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, TypeVar

from torch import Tensor

from bayesnn.moments.place import place

Rule = Callable[..., Any]
_R = TypeVar("_R", bound=Rule)

MOMENT_RULES: dict[Any, Rule] = {}
"""{torch function, or type of a module: its rule}.

The rule of a function takes the function's own arguments, `Moments` among them, and returns `Moments`; that of a module
takes the module and the arguments of its `forward`.

    MOMENT_RULES[torch.sin] = elementwise_moments(torch.sin)
    MOMENT_RULES[Scale] = lambda module, x: module.factor * x
"""

_INSTEAD: ContextVar[Mapping[Any, Rule]] = ContextVar("rules", default=MappingProxyType({}))

_QUERIES = {
    *(Tensor.size, Tensor.dim, Tensor.numel, Tensor.__len__, Tensor.stride, Tensor.is_floating_point),
    *(Tensor.is_complex, Tensor.is_contiguous, Tensor.element_size, Tensor.get_device, Tensor.ndimension),
}
_NO_QUERIES = {"data", "grad", "real", "imag", "itemsize"}


def moment_rule(*functions: Any) -> Callable[[_R], _R]:
    """Decorator: what is written below it is the rule of these torch functions, or of these types of modules.

    The rule of a type, `rule(module, *arguments)`, stands in the place of the module's `forward` while
    `propagate_moments` runs, wherever an argument or a parameter of the module is random; of subclasses too, unless
    they have another `forward`. Random parameters are found as `Moments` where the module has them. It serves for
    layers whose steps have no rules, and for those whose moments are known better as a whole.

    Args:
        functions: as torch calls them (`F.relu` and `torch.relu` are two), or subclasses of `nn.Module`.

    >>> import torch
    >>> from bayesnn.moments import Moments, elementwise_moments, propagate_moments
    >>> @moment_rule(torch.negative)
    ... def negative(x: Moments) -> Moments:
    ...     return Moments(-x.loc, x.variance)
    >>> torch.negative(Moments(torch.ones(1), torch.ones(1)))
    Moments(loc=tensor([-1.]), variance=tensor([1.]))

    A gate that multiplies its input by a function of it has no rule as a product, but one as a whole:

    >>> class Gate(torch.nn.Module):
    ...     def forward(self, h):
    ...         return h * torch.sigmoid(h)
    >>> @moment_rule(Gate)
    ... def gate(module, h):
    ...     return elementwise_moments(torch.nn.functional.silu)(h)
    >>> net = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False), Gate())
    >>> weight = Moments(torch.ones(1, 1), torch.ones(1, 1))
    >>> propagate_moments(net, {"0.weight": weight}, torch.ones(1, 1))
    Moments(loc=tensor([[0.8747]]), variance=tensor([[0.7159]]))
    """

    def register(rule: _R) -> _R:
        MOMENT_RULES.update((function, rule) for function in functions)
        return rule

    return register


@contextmanager
def using_moment_rules(rules: Mapping[Any, Rule]) -> Iterator[None]:
    """Inside, these rules stand before those of the table.

    >>> from torch.nn import functional as F
    >>> from bayesnn.moments import Moments, pairwise_max_pool
    >>> import torch
    >>> x = Moments(torch.zeros(1, 1, 2), torch.ones(1, 1, 2))
    >>> with using_moment_rules({F.max_pool1d: pairwise_max_pool}):
    ...     F.max_pool1d(x, 2).loc
    tensor([[[0.5642]]])
    """
    token = _INSTEAD.set({**_INSTEAD.get(), **rules})
    try:
        yield
    finally:
        _INSTEAD.reset(token)


class RandomTensor(Tensor):
    """A tensor for which the table stands in the place of torch's functions: what `Moments` are.

    Attributes:
        loc: its mean.
    """

    loc: Tensor

    @property
    def stale(self) -> bool:
        """Whether something that shares its storage was changed in place."""
        raise NotImplementedError

    def write(self, other: Any) -> Any:
        """What an in-place operation does: become the other."""
        raise NotImplementedError

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs or {})


def rule_of(func: Any) -> Rule | None:
    """The rule that holds at present, if there is one."""
    instead = _INSTEAD.get()
    return instead[func] if instead and func in instead else MOMENT_RULES.get(func)


def dispatch(func: Any, args: Any, kwargs: Mapping[str, Any], find: Callable[[Any], Rule | None] = rule_of) -> Any:
    """What a torch function returns that was called with `Moments`, by the rules that `find` finds."""
    for value in (*args, *args[0]) if args and isinstance(args[0], (list, tuple)) else args:
        if isinstance(value, RandomTensor) and value.stale:
            raise NotImplementedError(
                f"moments: {_name(func)} at {place()} uses a view of a tensor that was since changed in place; write "
                "the operation that changes it without inplace=True or the final '_'"
            )
    rule = find(func)
    if rule is not None:
        result = rule(*args, **kwargs)
        return args[0].write(result) if kwargs.get("inplace") else result
    name = _name(func)
    if name == "__get__":
        return _attribute(func, args[0], find)
    if func in _QUERIES:
        return func(args[0].loc, *args[1:], **kwargs)
    base = _out_of_place(name, find)
    if base is not None:
        result = base(*args, **kwargs)
        if isinstance(args[0], RandomTensor):
            return args[0].write(result)
        if name.startswith("__"):  # x += random: Python puts the result in the place of x
            return result
    raise _unsupported(name)


def types_with_rules() -> bool:
    """Whether the rule of a type, and so of modules, holds at present."""
    return any(isinstance(key, type) for rules in (MOMENT_RULES, _INSTEAD.get()) for key in rules)


def _attribute(getter: Any, value: RandomTensor, find: Callable[[Any], Rule | None]) -> Any:
    name = getter.__self__.__name__
    if name in _NO_QUERIES:
        raise _unsupported(f"Tensor.{name}")
    rule = find(name)
    return getter(value.loc) if rule is None else rule(value)


def _out_of_place(name: str, find: Callable[[Any], Rule | None]) -> Rule | None:
    """The rule of `add` for `add_`, of `__add__` for `__iadd__`."""
    if name.startswith("__i") and name.endswith("__"):
        name = f"__{name[3:]}"
    elif name.endswith("_") and not name.endswith("__"):
        name = name[:-1]
    else:
        return None
    return find(getattr(Tensor, name, None)) if hasattr(Tensor, name) else None


def _unsupported(name: str) -> NotImplementedError:
    hint = (
        "add its rule, bayesnn.moments.MOMENT_RULES[function] = elementwise_moments(function) for an activation, or "
        "that of the module's type"
    )
    elsewhere = "take a subset behind it, use MeanField, or add a rule of the module's type"
    if "attention" in name:
        hint = f"attention multiplies random tensors; {elsewhere}"
    elif "matmul" in name or name in ("mul", "bmm", "__mul__", "einsum"):
        hint = f"products of two random tensors depend on their correlation; {elsewhere}"
    elif "softmax" in name:
        hint = "let the network return logits: the likelihood turns them into probabilities"
    elif name == "div":
        hint = "the inverse of a normal variable has no mean; leave the divisor out of the subset, or use MeanField"
    return NotImplementedError(f"moments: {name} at {place()} has no rule for means and variances; {hint}")


def _name(func: Any) -> str:
    if func.__name__ == "fn" and "boolean_dispatch" in func.__qualname__:
        return "a pooling with indices"
    return str(func.__name__)
