"""Golden values of the moment rules, their derivatives and limits, and what a
user sees of the table.
"""

import copy

import pytest
import torch
from conftest import Untouched
from torch import Tensor, nn
from torch.nn import functional as F

from bayesnn.moments import (
    MOMENT_RULES,
    Moments,
    Multiplicative,
    both_moments,
    elementwise_moments,
    pairwise_max_pool,
    propagate_moments,
    using_moment_rules,
)
from bayesnn.moments.activations import leaky_relu_moments, relu_moments
from bayesnn.moments.clipping import clip_moments
from bayesnn.moments.pairwise import maximum_moments

W = torch.tensor([[0.5, -1, 0.25], [1.5, 0.1, -0.4]], dtype=torch.double)
B = torch.tensor([0.1, -0.2], dtype=torch.double)
NOISE = torch.tensor([0.1, 0.2, 0.05], dtype=torch.double)


def close(found: Moments, loc: list[float], variance: list[float]) -> None:
    torch.testing.assert_close(found.loc.flatten(), torch.tensor(loc, dtype=torch.double), rtol=0, atol=6e-11)
    torch.testing.assert_close(found.variance.flatten(), torch.tensor(variance, dtype=torch.double), rtol=0, atol=6e-11)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.double)


def test_relu() -> None:
    found = F.relu(Moments(double(0.5, -1, 0, 2), double(1, 0.25, 1, 0.1)))
    loc = [0.6977965574, 0.0042453513, 0.3989422804, 2.0000000000]
    torch.testing.assert_close(found.loc, double(*loc), rtol=0, atol=1e-10)
    variance = [0.5534407045, 0.0014241587, 0.3408450569, 0.1000000000]
    torch.testing.assert_close(found.variance, double(*variance), rtol=0, atol=1e-9)


def test_the_larger_of_two() -> None:
    mean, variance = maximum_moments(double(0.3), double(0.5), double(-0.2), double(1.0))
    close(Moments(mean, variance), [0.5787631625], [0.4536823676])


def test_multiplicative_linear_then_relu() -> None:
    x = Moments(double(1, -0.5, 2)[None], double(0.2, 0, 0.3)[None])
    hidden = F.linear(x, Multiplicative(W, NOISE, W.square()), B)
    close(hidden, [1.6, 0.45], [0.1621875, 0.8029])
    close(F.relu(hidden), [1.6000032433, 0.6266259102], [0.1621765537, 0.4451200347])


@pytest.mark.parametrize(
    "rule",
    [
        relu_moments,
        lambda m, v: leaky_relu_moments(m, v, 0.2),
        lambda m, v: clip_moments(m, v, -0.7, 1.1),
        lambda m, v: clip_moments(m, v, -0.7, 1e4),
        lambda m, v: maximum_moments(m, v, m.flip(0), v.flip(0)),
        lambda m, v: _parts(torch.tanh(Moments(m, v))),
        lambda m, v: _parts(F.gelu(Moments(m, v))),
        lambda m, v: _parts(F.linear(Moments(m[None], v[None]), Moments(m[None], v[None]), Moments(m[:1], v[:1]))),
    ],
    ids=["relu", "leaky relu", "clip", "clip, out of reach", "maximum", "tanh", "gelu", "linear"],
)
def test_derivatives(rule: object) -> None:
    loc, variance = torch.randn(7, dtype=torch.double), torch.rand(7, dtype=torch.double) + 0.1
    assert torch.autograd.gradcheck(rule, (loc.requires_grad_(), variance.requires_grad_()))


def _parts(found: Moments) -> tuple[Tensor, Tensor]:
    return found.loc, found.variance


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_extreme_inputs_stay_finite(dtype: torch.dtype) -> None:
    sizes = torch.tensor([0, 1e-30, 1e-12, 1e-5, 1, 30, 1e6, 1e15], dtype=dtype)
    loc, variance = torch.cartesian_prod(torch.cat([sizes, -sizes]), sizes).T
    for rule in (F.relu, F.relu6, lambda x: F.leaky_relu(x, 0.1), torch.tanh, F.softplus):
        leaves = [loc.clone().requires_grad_(), variance.clone().requires_grad_()]
        found = rule(Moments(*leaves))
        gradients = torch.autograd.grad(found.loc.sum() + found.variance.sum(), leaves)
        for value in (found.loc, found.variance, *gradients):
            assert value.isfinite().all()
        assert (found.variance >= 0).all()
        bound = (F.relu(loc) if rule is F.relu else rule(loc))[variance == 0]
        torch.testing.assert_close(found.loc[variance == 0], bound, rtol=1e-6, atol=1e-14)


def test_a_rule_of_ones_own() -> None:
    x = Moments(torch.tensor([0.5]), torch.tensor([1.0]))
    with pytest.raises(NotImplementedError, match=r"moments: expm1 at test_moments.py:"):
        torch.expm1(x)
    with using_moment_rules({torch.expm1: elementwise_moments(torch.expm1, nodes=80)}):
        assert torch.expm1(x).loc.item() == pytest.approx(torch.e - 1, rel=1e-5)
    assert torch.expm1 not in MOMENT_RULES
    with using_moment_rules({torch.fliplr: both_moments(torch.fliplr)}):
        assert torch.fliplr(Moments(torch.eye(2), torch.eye(2))).loc[0, 1] == 1


def test_pooling_rules_can_be_exchanged() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, bias=False), nn.MaxPool2d(2)).requires_grad_(requires_grad=False)
    values = {"0.weight": Moments(net[0].weight, torch.ones_like(net[0].weight))}
    cheap = propagate_moments(net, values, torch.ones(1, 1, 4, 4))
    with using_moment_rules({F.max_pool2d: pairwise_max_pool}):
        exact = propagate_moments(net, values, torch.ones(1, 1, 4, 4))
    assert (exact.loc > cheap.loc).all()


def test_in_place_operations() -> None:
    x = Moments(torch.tensor([[-1.0, 2.0]]), torch.ones(1, 2))
    expected = F.relu(x)
    y = x + 0
    y += 0 * x
    F.relu(y, inplace=True)
    torch.testing.assert_close(y.loc, expected.loc)
    view = y.view(2)
    view.relu_()
    with pytest.raises(NotImplementedError, match="a view of a tensor that was since changed in place"):
        y + 1
    assert (view + 1).loc.isfinite().all()


class Squared(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x


def test_unsupported_operations_name_their_place() -> None:
    weight = torch.ones(2, 2)
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Sequential(nn.ReLU(), Squared()))
    values, x = {"0.weight": Moments(weight, weight)}, torch.ones(1, 2)
    with pytest.raises(NotImplementedError, match=r"mul at '1.1' \(Squared\), test_moments.py:\d+ has no rule"):
        propagate_moments(net, values, x)
    attention = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, dropout=0.0).eval()
    name = "self_attn.in_proj_weight"
    held = attention.get_parameter(name).detach()
    with pytest.raises(NotImplementedError, match=r"attention.* at 'self_attn' .*attention multiplies random tensors"):
        propagate_moments(attention, {name: Moments(held, held.square())}, torch.ones(2, 3, 4))
    with pytest.raises(TypeError, match="depend on no random weight"):
        propagate_moments(net, {}, x)


def test_half_precision_is_computed_in_float32() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).requires_grad_(requires_grad=False)
    half = copy.deepcopy(net).half()
    x = torch.tensor([[300.0, -200.0]])  # whose squares are beyond float16
    values = {"0.weight": Moments(half[0].weight, half[0].weight.square())}
    found = propagate_moments(half, values, x.half())
    full = {"0.weight": Moments(half[0].weight.float(), half[0].weight.float().square())}
    expected = propagate_moments(copy.deepcopy(half).float(), full, x)
    assert found.loc.dtype == found.variance.dtype == torch.float32
    torch.testing.assert_close(found.loc, expected.loc, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.variance, expected.variance, rtol=2e-3, atol=1e-3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = propagate_moments(net, {"2.weight": Moments(net[2].weight, torch.ones(1, 3))}, x)
    torch.testing.assert_close(inside.loc, net(x))


def test_batch_norm_in_training_mode_uses_the_statistics_of_the_means() -> None:
    norm = nn.BatchNorm1d(3).train()
    before = copy.deepcopy(norm.state_dict())
    x = torch.randn(20, 3)
    net = nn.Sequential(nn.Linear(3, 3), norm).requires_grad_(requires_grad=False)
    found = propagate_moments(net, {"0.weight": Moments(net[0].weight, torch.full((3, 3), 0.1))}, x)
    hidden = net[0](x)
    torch.testing.assert_close(found.loc, F.batch_norm(hidden, None, None, norm.weight, norm.bias, training=True))
    variance = 0.1 * x.square().sum(1, keepdim=True) / (hidden.var(0, correction=0) + norm.eps)
    torch.testing.assert_close(found.variance, variance)
    assert all(torch.equal(before[name], value) for name, value in norm.state_dict().items())


class Gate(nn.Module):
    """Multiplies its input by a function of it, which no rule of an operation knows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = nn.Parameter(torch.full((width,), 2.0))

    def forward(self, h: Tensor) -> Tensor:
        return self.width * (h * torch.sigmoid(h))


class Child(Gate):
    """Computes the same."""


class Other(Gate):
    """Computes something else."""

    def forward(self, h: Tensor) -> Tensor:
        return h


def of_gate(module: Gate, h: Moments) -> Moments:
    return module.width * F.silu(h)


def gated(kind: type[Gate]) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), kind(4), nn.Linear(4, 2), kind(2)).requires_grad_(requires_grad=False)


@pytest.mark.parametrize("kind", [Gate, Child])
def test_a_rule_of_a_module(kind: type[Gate], untouched: Untouched) -> None:
    """Beside the same network of operations that have rules."""
    net, x = gated(kind), torch.randn(5, 3)
    same = nn.Sequential(net[0], nn.SiLU(), nn.Linear(4, 2), nn.SiLU()).requires_grad_(requires_grad=False)
    same[2].weight.copy_(2 * net[2].weight)
    same[2].bias.copy_(net[2].bias)
    values = {"0.weight": Moments(net[0].weight, torch.full((4, 3), 0.2))}
    with untouched(net), using_moment_rules({Gate: of_gate}):
        found = propagate_moments(net, values, x, chunk=2)
    expected = propagate_moments(same, values, x)
    torch.testing.assert_close(found.loc, 2 * expected.loc)
    torch.testing.assert_close(found.variance, 4 * expected.variance)
    with (
        untouched(net),
        pytest.raises(NotImplementedError, match=r"mul at '1' \(\w+\), .* add a rule of the module's type"),
    ):
        propagate_moments(net, values, x)


def test_a_modules_own_weights_may_be_random() -> None:
    """At a certain input too; where all is certain the module is itself."""
    net, x, calls = gated(Gate), torch.randn(5, 3), []

    def counted(module: Gate, h: Moments) -> Moments:
        calls.append(type(h))
        return of_gate(module, h)

    with using_moment_rules({Gate: counted}):
        found = propagate_moments(net, {"1.width": Moments(torch.full((4,), 2.0), torch.full((4,), 0.3))}, x)
        assert calls == [Tensor, Moments]
        last = propagate_moments(net[:3], {"2.bias": Moments(net[2].bias, torch.ones(2))}, x)
        assert calls == [Tensor, Moments]
    hidden = Moments(net[:3](x), 0.3 * F.silu(net[0](x)).square() @ net[2].weight.square().T)
    torch.testing.assert_close(found.loc, 2 * F.silu(hidden).loc)
    torch.testing.assert_close(found.variance, 4 * F.silu(hidden).variance)
    torch.testing.assert_close(last.loc, net[:3](x))


def test_a_rule_of_a_module_may_call_the_module() -> None:
    net, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU()).requires_grad_(requires_grad=False), torch.randn(5, 3)
    values = {"0.weight": Moments(net[0].weight, torch.ones(4, 3))}
    plain = propagate_moments(net, values, x)

    def wider(module: nn.Module, *args: Tensor) -> Moments:
        found = module(*args)
        return Moments(found.loc, 3 * found.variance)

    with using_moment_rules({nn.ReLU: wider, nn.Sequential: wider}):
        found = propagate_moments(net, values, x)
    torch.testing.assert_close(found.loc, plain.loc)
    torch.testing.assert_close(found.variance, 9 * plain.variance)


def test_a_rule_of_a_module_may_not_lose_covariances() -> None:
    net, x = (
        nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), Gate(4)).requires_grad_(requires_grad=False),
        torch.ones(2, 3),
    )
    values = {"0.weight": Moments(net[0].weight, torch.ones(4, 3))}

    def variances(module: Gate, h: Moments) -> Moments:
        return Moments(h.loc, h.variance)

    with using_moment_rules({Gate: of_gate}):
        assert propagate_moments(net, values, x, covariance=True).joint
    with (
        using_moment_rules({Gate: variances}),
        pytest.raises(NotImplementedError, match=r"the rule of Gate at '2' .* it returns variances alone"),
    ):
        propagate_moments(net, values, x, covariance=True)


def test_rules_of_modules_that_compute_something_else(untouched: Untouched) -> None:
    """A `forward` of a subclass or of the instance is not that of the type; an
    error leaves nothing behind.
    """
    x, rules = torch.randn(5, 3), {Gate: of_gate}
    net, other = gated(Gate), gated(Other)
    values = {"0.weight": Moments(net[0].weight, torch.ones(4, 3))}
    with untouched(other), using_moment_rules(rules):
        found = propagate_moments(other, values, x)
    assert isinstance(found, Moments)
    torch.testing.assert_close(found.loc, F.linear(F.linear(x, net[0].weight, other[0].bias), *other[2].parameters()))
    net[1].forward = lambda h: h

    def broken(module: nn.Module, h: Moments) -> Moments:
        raise RuntimeError("broken")

    with untouched(net), using_moment_rules(rules):
        propagate_moments(net, values, x)
    with untouched(net), using_moment_rules({Gate: broken}), pytest.raises(RuntimeError, match="broken"):
        propagate_moments(net, values, x)
