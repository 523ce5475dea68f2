"""A case for every rule in the table of moments, by the kind of evidence that there is for it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bayesnn.moments import MOMENT_RULES

RULES = dict(MOMENT_RULES)
"""As the package has them: tests and examples add rules of their own later."""


def name_of(key: Any) -> str:
    """`relu` for torch.relu, Tensor.relu and F.relu."""
    return key if isinstance(key, str) else str(key.__name__)


def label(key: Any) -> str:
    """As the key is imported, where it has a name."""
    owner = getattr(key, "__objclass__", None) or getattr(key, "__module__", "")
    return f"{getattr(owner, '__name__', owner)}.{name_of(key)}".removeprefix(".")


@dataclass(frozen=True)
class Drawn:
    """A rule that is exact for independent normal inputs, to be found again in draws of them.

    Attributes:
        keys: of the table; the first is drawn, the others must give its very numbers.
        call: (function, input [draw, *shape]) -> [draw, ...].
        shape: of the input.
    """

    keys: tuple[Any, ...]
    call: Callable[[Any, Any], Any] = lambda f, x: f(x)
    shape: tuple[int, ...] = (4,)


A, B = torch.arange(8.0).reshape(4, 2) / 3 - 1, torch.tensor([0.5, -1.0])
FACTOR = torch.tensor([1.0, -2.0, 3.0, 0.5])
MASK = torch.tensor([True, False])
RUNNING = (torch.tensor([0.3, -1.0, 0.0, 2.0]), torch.tensor([0.5, 2.0, 1.0, 3.0]))
AFFINE = (torch.tensor([1.5, -0.5, 0.1, 2.0]), torch.tensor([0.0, 1.0, -1.0, 0.2]))
_OF_TORCH = {"training": False, "momentum": 0.1, "eps": 1e-5, "cudnn_enabled": False}
T = Tensor


def _kernel(*shape: int) -> Tensor:
    """Some weights."""
    return torch.sin(torch.arange(torch.Size(shape).numel()) + 1.0).reshape(shape)


def _two(f: Any, x: Any) -> Any:
    return f(x[:, :2], x[:, 2:])


DRAWN = [
    Drawn((F.relu, torch.relu, T.relu)),
    Drawn((F.leaky_relu,), lambda f, x: f(x, 0.3)),
    Drawn((torch.abs, T.abs)),
    Drawn((F.hardsigmoid,), lambda f, x: f(3 * x)),
    Drawn((F.relu6,), lambda f, x: f(4 * x + 3)),
    Drawn((F.hardtanh,), lambda f, x: f(2 * x)),
    Drawn((torch.clamp, torch.clip, T.clamp, T.clip), lambda f, x: f(x, -0.5, 0.8)),
    Drawn((torch.tanh, T.tanh, F.tanh)),
    Drawn((torch.sigmoid, T.sigmoid, F.sigmoid), lambda f, x: f(3 * x)),
    Drawn((F.softsign,)),
    Drawn((F.prelu, torch.prelu), lambda f, x: f(x, FACTOR), (4,)),
    Drawn((torch.clamp_min, T.clamp_min), lambda f, x: f(x, -0.2)),
    Drawn((torch.clamp_max, T.clamp_max), lambda f, x: f(x, 0.4)),
    *(Drawn((f,)) for f in (F.gelu, F.softplus, F.silu, F.mish, F.logsigmoid, F.elu, F.celu, F.selu, F.hardswish)),
    *(Drawn(keys) for keys in ((torch.erf, T.erf), (torch.sin, T.sin), (torch.cos, T.cos))),
    Drawn((torch.exp, T.exp), lambda f, x: f(x / 2)),
    Drawn((torch.square, T.square)),
    Drawn((torch.pow, T.pow, T.__pow__), lambda f, x: f(x, 2)),
    Drawn((torch.add, T.add, T.__add__, T.__radd__), _two),
    Drawn((torch.sub, T.sub, T.__sub__, torch.subtract), _two),
    Drawn((torch.rsub, T.__rsub__), lambda f, x: f(x, 2.0)),
    Drawn((torch.neg, T.neg)),
    Drawn((torch.mul, T.mul, T.__mul__, T.__rmul__, torch.multiply), lambda f, x: f(x, FACTOR)),
    Drawn((torch.div, T.div, T.__truediv__, torch.true_divide), lambda f, x: f(x, FACTOR)),
    Drawn((torch.sum, T.sum), lambda f, x: f(x, 1)),
    Drawn((torch.mean, T.mean), lambda f, x: f(x, 1)),
    Drawn((torch.maximum, T.maximum), _two),
    Drawn((F.dropout,), lambda f, x: f(x, 0.3, training=True)),
    Drawn((F.dropout1d,), lambda f, x: f(x, 0.3, training=True), (2, 2)),
    Drawn((F.dropout2d,), lambda f, x: f(x, 0.3, training=True), (2, 1, 2)),
    Drawn((F.dropout3d,), lambda f, x: f(x, 0.3, training=True), (2, 1, 1, 2)),
    Drawn((F.batch_norm,), lambda f, x: f(x, *RUNNING, *AFFINE)),
    Drawn((torch.batch_norm,), lambda f, x: f(x, *AFFINE, *RUNNING, **_OF_TORCH)),
    Drawn((F.linear,), lambda f, x: f(x, A.T, B)),
    Drawn((torch.matmul, torch.mm, T.matmul, T.mm, T.__matmul__), lambda f, x: f(x, A)),
    Drawn((torch.bmm, T.bmm), lambda f, x: f(x, A[:2].expand(len(x), 2, 2)), (2, 2)),
    Drawn((torch.mv, T.mv), lambda f, x: f(x, FACTOR)),
    Drawn((torch.tensordot,), lambda f, x: f(x, A.reshape(2, 2, 2), ([1, 2], [1, 0])), (2, 2)),
    Drawn((torch.einsum,), lambda f, x: f("zij,kjl->ikz", x, _kernel(3, 2, 4)).movedim(2, 0), (2, 2)),
    Drawn((T.__rmatmul__,), lambda f, x: f(x.mT, A.T).mT),
    Drawn((torch.addmm,), lambda f, x: f(B, x, A, beta=0.5, alpha=2.0)),
    Drawn((T.addmm,), lambda f, x: f(B.expand(len(x), 2), x, A)),
    Drawn((F.conv1d,), lambda f, x: f(x, _kernel(4, 1, 2), _kernel(4), 2, 1, 1, 2), (2, 3)),
    Drawn((F.conv2d,), lambda f, x: f(x, _kernel(2, 1, 2, 2), _kernel(2), 1, (1, 0), (1, 2), 2), (2, 2, 3)),
    Drawn((F.conv3d,), lambda f, x: f(x, _kernel(2, 1, 2, 2, 1), None, 1, 0, (1, 1, 2)), (1, 2, 2, 3)),
    Drawn((F.conv_transpose1d,), lambda f, x: f(x, _kernel(2, 1, 2), _kernel(2), 2, 0, 1, 2), (2, 2)),
    Drawn((F.conv_transpose2d,), lambda f, x: f(x, _kernel(1, 2, 2, 1), None, 2, 0, 0, 1, 2), (1, 2, 2)),
    Drawn((F.conv_transpose3d,), lambda f, x: f(x, _kernel(1, 1, 2, 1, 2)), (1, 1, 2, 2)),
    Drawn((F.avg_pool1d,), lambda f, x: f(x, 3, 2, 1, ceil_mode=True, count_include_pad=False), (1, 4)),
    Drawn((F.avg_pool2d,), lambda f, x: f(x, 2, 1, 1, divisor_override=3), (1, 2, 2)),
    Drawn((F.avg_pool3d,), lambda f, x: f(x, (1, 2, 2), 1, (0, 1, 0)), (1, 1, 2, 3)),
    Drawn((F.adaptive_avg_pool1d,), lambda f, x: f(x, 3), (1, 5)),
    # up-sampling along one axis
    Drawn((F.adaptive_avg_pool2d,), lambda f, x: f(x, (2, 5)), (1, 3, 2)),
    Drawn((F.adaptive_avg_pool3d,), lambda f, x: f(x, (3, 1, 1)), (1, 2, 1, 3)),
    Drawn((F.instance_norm,), lambda f, x: f(x, *RUNNING, *AFFINE, use_input_stats=False), (4, 2)),
    Drawn((F.interpolate,), lambda f, x: f(x, (3, 5), mode="bilinear", align_corners=False), (1, 2, 3)),
    Drawn((torch.where,), lambda f, x: f(MASK, x[:, :2], x[:, 2:])),
    Drawn((T.where,), lambda f, x: f(x[:, :2], MASK, x[:, 2:])),
    Drawn((torch.masked_fill, T.masked_fill), lambda f, x: f(x, MASK.repeat(2), 0.5)),
    Drawn((F.pad,), lambda f, x: f(x, (1, 2), value=3.0)),
]
"""Of these the quadrature of smooth functions is exact to 1e-6, and of
functions with a kink to 1e-3.
"""


@dataclass(frozen=True)
class Moved:
    """A rule of what moves entries, [*shape] -> a tensor or several of entries
    of the input: exact.
    """

    call: Callable[[Any, Any], Any] = lambda f, x: f(x)
    shape: tuple[int, ...] = (2, 3, 4)


def _with(*args: Any, shape: tuple[int, ...] = (2, 3, 4), **options: Any) -> Moved:
    return Moved(lambda f, x: f(x, *args, **options), shape)


MOVED: dict[str, Moved] = {
    **dict.fromkeys(("contiguous", "clone", "float", "double", "cpu", "cuda", "positive", "detach"), Moved()),
    **dict.fromkeys(("T", "mT"), Moved(lambda f, x: getattr(x, f), (2, 3))),
    **dict.fromkeys(("flatten", "adjoint"), Moved()),
    **dict.fromkeys(("reshape", "view"), _with((6, 4))),
    **dict.fromkeys(("view_as", "reshape_as"), _with(torch.zeros(6, 4))),
    **dict.fromkeys(("transpose", "swapaxes", "movedim", "moveaxis"), _with(0, 2)),
    **dict.fromkeys(("chunk", "split", "tensor_split"), _with(3, -1)),
    **dict.fromkeys(("expand", "broadcast_to"), _with((2, 3, 4), shape=(2, 1, 4))),
    "expand_as": _with(torch.zeros(2, 3, 4), shape=(2, 1, 4)),
    **dict.fromkeys(("repeat", "tile"), _with((2, 1, 3))),
    "t": Moved(shape=(3, 4)),
    "unflatten": _with(1, (3, 1)),
    "permute": _with((2, 0, 1)),
    "squeeze": _with(1, shape=(2, 1, 4)),
    "unsqueeze": _with(1),
    "unbind": _with(1),
    "narrow": _with(1, 1, 2),
    "select": _with(1, 2),
    "flip": _with((0, 2)),
    "roll": _with(2, -1),
    "index_select": _with(1, torch.tensor([2, 0])),
    "to": _with(torch.double),
    "type_as": _with(torch.zeros(1, dtype=torch.double)),
    "__getitem__": _with((slice(None), None, torch.tensor([2, 0]), slice(0, 4, 2))),
    "repeat_interleave": _with(2, 1),
    "diagonal": _with(0, 1, 2),
    "pixel_shuffle": _with(2, shape=(1, 4, 2, 3)),
    "pixel_unshuffle": _with(2, shape=(1, 1, 4, 6)),
    "channel_shuffle": _with(2, shape=(1, 4, 2, 3)),
    "unfold": Moved(lambda f, x: f(x, 2) if f is F.unfold else f(x, 3, 2, 1), (1, 2, 3, 4)),
    "gather": _with(1, torch.tensor([[[2, 0, 0, 1]], [[1, 1, 2, 0]]])),
    "embedding": Moved(lambda f, x: f(torch.tensor([[2, 0], [1, 1]]), x), (3, 2)),
    **dict.fromkeys(("cat", "concat", "concatenate"), Moved(lambda f, x: f([x, x[:, 1:], x], 1))),
    **dict.fromkeys(("hstack", "vstack"), Moved(lambda f, x: f([x, x.flip(0), x]))),
    "stack": Moved(lambda f, x: f([x, x.flip(0)], 1)),
}
"""{name of functions: their case}."""

CERTAIN: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("zeros_like", "ones_like", "randn_like", "rand_like"), ()),
    **dict.fromkeys(("new_zeros", "new_ones", "new_empty"), ((2, 5),)),
    "new_tensor": ([1.0, 2.0],),
    "new_full": ((2, 5), 3.0),
    "full_like": (3.0,),
}
"""{name: arguments after the tensor} of functions whose result does not depend on its values."""

LARGEST = {
    F.max_pool1d: ((2, 7), (3, 2, 1)),
    F.max_pool2d: ((2, 5, 6), (2, 2)),
    F.max_pool3d: ((1, 4, 3, 4), (2, 1)),
    F.adaptive_max_pool1d: ((2, 7), (3,)),
    F.adaptive_max_pool2d: ((2, 5, 6), ((2, 7),)),
    F.adaptive_max_pool3d: ((1, 4, 3, 4), (2,)),
}
"""{function: (shape, arguments)} of approximations by the entry with the largest mean."""

STANDARDISED = {F.layer_norm: None, torch.layer_norm: None, F.group_norm: 3, torch.group_norm: 3}
"""{function: groups} of approximations with an expected spread."""

ROOT_MEAN_SQUARES = (F.rms_norm, torch.rms_norm)
"""Approximations with an expected square."""

BAGS = (F.embedding_bag,)
"""Sums of rows of a random table, one of which may be there twice."""

REFUSED = {torch.bilinear: (_kernel(1, 4, 4),)}
"""{function: arguments} of rules that say why there is none."""
