"""{torch function or type of a module: its moment rule}, and what happens where there is none."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, TypeVar

from torch import Tensor

from bayesnn.moments.place import place
from bayesnn.moments.words import carried, repeated_words

Rule = Callable[..., Any]
_R = TypeVar("_R", bound=Rule)

MOMENT_RULES: dict[Any, Rule] = {}
"""{torch function, or type of a module: its rule}.

The rule of a function takes the function's own arguments, `Moments` among them, and returns
`Moments`; that of a module takes the module and the arguments of its `forward`.

    MOMENT_RULES[torch.sin] = elementwise_moments(torch.sin)
    MOMENT_RULES[Scale] = lambda module, x: module.factor * x
"""

_INSTEAD: ContextVar[Mapping[Any, Rule]] = ContextVar("rules", default=MappingProxyType({}))

_QUERIES = {
    *(Tensor.size, Tensor.dim, Tensor.numel, Tensor.__len__, Tensor.stride, Tensor.is_floating_point),
    *(Tensor.is_complex, Tensor.is_contiguous, Tensor.element_size, Tensor.get_device, Tensor.ndimension),
}
_INSIDE: ContextVar[bool] = ContextVar("inside", default=False)
"""Whether a rule runs whose weights are noted: what it calls are no further uses of them."""

_FIRST, _SECOND = ("input", "tensors", "self"), ("other", "mat2", "vec")
"""Names by which torch's functions take their first two arguments."""

_OF_ITSELF = {"add", "sub", "__add__", "__radd__", "__sub__", "__mul__", "mul"}
"""Functions whose rules know that both arguments are one."""

_RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"}
_COMPARISONS = {"__gt__", "__lt__", "__ge__", "__le__", "gt", "lt", "ge", "le", "argmax", "sort", "topk", "argsort"}
_NO_QUERIES = {"data", "grad", "real", "imag", "itemsize"}


def moment_rule(*functions: Any) -> Callable[[_R], _R]:
    """Decorator: what is written below it is the rule of these torch functions, or of these types
    of modules.

    The rule of a type, `rule(module, *arguments)`, stands in the place of the module's `forward`
    while `propagate_moments` runs, wherever an argument or a parameter of the module is random; of
    subclasses too, unless they have another `forward`. Random parameters are found as `Moments`
    where the module has them. It serves for layers whose steps have no rules, and for those whose
    moments are known better as a whole.

    Args:
        functions: as torch calls them (`F.relu` and `torch.relu` are two), or subclasses of
            `nn.Module`.

    >>> import torch
    >>> from bayesnn.moments import Moments, elementwise_moments, propagate_moments
    >>> @moment_rule(torch.negative)
    ... def negative(x: Moments) -> Moments:
    ...     return Moments(-x.loc, x.variance)
    >>> torch.negative(Moments(torch.ones(1), torch.ones(1)))
    Moments(loc=tensor([-1.]), variance=tensor([1.]))

    A gate that multiplies its input by a function of it has no rule as a product, but one as a
    whole:

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
        words: rows of a table that positions looked up, where an example has one twice.
    """

    loc: Tensor
    words: Tensor | None = None

    @property
    def stale(self) -> bool:
        """Whether something that shares its storage was changed in place."""
        raise NotImplementedError

    def used(self, what: str) -> bool:
        """Note that an operation uses it; whether it is a parameter whose uses count."""
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
    """What a torch function returns that was called with `Moments`, by the
    rules that `find` finds.
    """
    args, kwargs = _in_order(args, kwargs)
    random = [value for value in _leaves(args, kwargs) if isinstance(value, RandomTensor)]
    for value in random:
        if value.stale:
            raise NotImplementedError(
                f"moments: {_name(func)} at {place()} uses a view of a tensor that was since changed in place; write "
                "the operation that changes it without inplace=True or the final '_'"
            )
    rule = find(func)
    if rule is not None:
        result = _applied(func, rule, random, args, kwargs)
        return args[0].write(result) if kwargs.get("inplace") else result
    name = _name(func)
    if name == "__get__":
        return _attribute(func, args[0], find)
    if func in _QUERIES:
        return func(args[0].loc, *args[1:], **kwargs)
    base = _out_of_place(name, find)
    if base is not None:
        result = _applied(func, base, random, args, kwargs)
        if isinstance(args[0], RandomTensor):
            return args[0].write(result)
        if name.startswith("__"):  # x += random: Python puts the result in the place of x
            return result
    raise _unsupported(name)


def _in_order(args: Any, kwargs: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    """Arguments as rules take them: the first two by position, and no `out=None`."""
    if not kwargs:
        return args, kwargs
    if "out" in kwargs and kwargs["out"] is None:
        kwargs = {name: value for name, value in kwargs.items() if name != "out"}
    if len(args) > 1 or (args and "input" in kwargs):
        return args, kwargs
    args, kwargs = tuple(args), dict(kwargs)
    if not args:
        args = tuple(kwargs.pop(name) for name in _FIRST if name in kwargs)
    if len(args) == 1 and "mat1" not in kwargs:
        args += tuple(kwargs.pop(name) for name in _SECOND if name in kwargs)
    return args, kwargs


def _leaves(args: Any, kwargs: Mapping[str, Any]) -> Iterator[Any]:
    for value in (*args, *kwargs.values()):
        if isinstance(value, (list, tuple)):
            yield from value
        else:
            yield value


def _applied(func: Any, rule: Rule, random: list[Any], args: Any, kwargs: Mapping[str, Any]) -> Any:
    """What the rule returns; uses of parameters are noted, and positions with equal words."""
    name = _name(func)
    words = next((value.words for value in random if value.words is not None), None)
    if words is not None and not getattr(rule, "sizes", False):
        tensors = [value for value in _leaves(args, kwargs) if isinstance(value, Tensor)]
        words = carried(_in_place_of(name), getattr(rule, "elementwise", False), words, tensors)
    if _INSIDE.get() or getattr(rule, "moves", False):
        result = _bound(name, rule, args, kwargs)
    else:
        distinct = {id(value): value for value in random}.values() if name in _OF_ITSELF else random
        noted = [value.used(name) for value in distinct]  # all of them
        token = _INSIDE.set(True) if any(noted) else None
        try:
            result = _bound(name, rule, args, kwargs)
        finally:
            if token is not None:
                _INSIDE.reset(token)
    if words is not None and isinstance(result, RandomTensor):
        result.words = words
    return result


def _bound(name: str, rule: Rule, args: Any, kwargs: Mapping[str, Any]) -> Any:
    """What the rule returns; arguments that it does not take are refused."""
    try:
        return rule(*args, **kwargs)
    except TypeError as error:
        try:
            inspect.signature(rule).bind(*args, **kwargs)
        except TypeError as unknown:
            raise NotImplementedError(
                f"moments: the rule of {name} at {place()} does not know these arguments ({unknown}); leave them out, "
                "or add a rule of the module's type"
            ) from error
        raise


def _in_place_of(name: str) -> str:
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def types_with_rules() -> bool:
    """Whether the rule of a type, and so of modules, holds at present."""
    return any(isinstance(key, type) for rules in (MOMENT_RULES, _INSTEAD.get()) for key in rules)


def _attribute(getter: Any, value: RandomTensor, find: Callable[[Any], Rule | None]) -> Any:
    name = getter.__self__.__name__
    if name in _NO_QUERIES:
        raise _unsupported(f"Tensor.{name}")
    rule = find(name)
    if rule is not None and value.words is not None:
        raise repeated_words(name)
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
    elsewhere = "take a subset behind it, use MeanField, or add a rule of the module's type"
    hint = (
        "add its rule, bayesnn.moments.MOMENT_RULES[function] = elementwise_moments(function) for an activation; else "
        f"{elsewhere}"
    )
    if "attention" in name:
        hint = f"attention multiplies random tensors; {elsewhere}"
    elif name in _RECURRENT:
        hint = f"recurrent layers use their weights at every step; {elsewhere}"
    elif "weight_norm" in name:
        hint = "the weight is a function of both its parts; leave these parameters out of the subset, or use MeanField"
    elif "matmul" in name or name in ("mul", "bmm", "__mul__", "einsum", "tensordot"):
        hint = f"products of two random tensors depend on their correlation; {elsewhere}"
    elif "softmax" in name:
        hint = "let the network return logits: the likelihood turns them into probabilities"
    elif name == "div":
        hint = "the inverse of a normal variable has no mean; leave the divisor out of the subset, or use MeanField"
    elif name in _COMPARISONS:
        hint = f"a choice by random values is no tensor of means and variances; {elsewhere}"
    return NotImplementedError(f"moments: {name} at {place()} has no rule for means and variances; {hint}")


def _name(func: Any) -> str:
    if func.__name__ == "fn" and "boolean_dispatch" in func.__qualname__:
        return "a pooling with indices"
    return str(func.__name__)
