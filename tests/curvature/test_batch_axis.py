"""Which axis is the batch: found with evidence, left open without, refused where it is no axis."""

import pytest
import torch
from fault_nets import BY_JACOBIANS, Joined, TimeFirstEncoder, pairs
from torch import nn

from bayesnn.curvature import JacobianRows, forward_pass
from bayesnn.curvature.batch_axis import settle
from bayesnn.curvature.fallback import NoRule
from bayesnn.functional import parameters


def test_a_joined_batch_is_the_inner_factor_of_its_axis() -> None:
    net = Joined().double()
    done = forward_pass(net, parameters(net), tuple(t.double() for t in pairs(4, same=True)))
    assert settle(done)
    assert {(use.place.axis, use.place.inner) for use in done.uses["encoder.0.weight"]} == {(0, True)}
    assert {(use.place.axis, use.place.inner) for use in done.uses["head.weight"]} == {(0, False)}


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_square_is_told_by_its_derivatives(batch_first: bool) -> None:
    net = TimeFirstEncoder(batch_first=batch_first).eval()
    done = forward_pass(net, parameters(net), torch.randn(5, 5, 4))
    assert settle(done)
    (use,) = done.uses["encoder.linear1.weight"]
    assert use.place.axis == (0 if batch_first else 1)


def test_no_derivative_is_no_evidence() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    nn.init.zeros_(net[2].weight)
    x, values = torch.randn(6, 3), parameters(net)
    assert not settle(forward_pass(net, values, x))
    rows = JacobianRows(net, values, dict.fromkeys(values))
    rows.settled(x)
    assert not rows._axes  # the next batch is looked at again
    rows.values["2.weight"] = torch.randn(2, 4)
    rows.settled(x)
    assert len(rows._axes) == 1


@pytest.mark.parametrize("kind", BY_JACOBIANS)
def test_no_axis_is_refused(kind: str) -> None:
    net, x = BY_JACOBIANS[kind]()
    with pytest.raises(NoRule):
        JacobianRows(net, parameters(net), dict.fromkeys(parameters(net))).settled(x)


def test_torch_s_random_numbers_are_left_alone() -> None:
    net = nn.Linear(3, 2)
    state = torch.get_rng_state()
    assert settle(forward_pass(net, parameters(net), torch.ones(4, 3)))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_rule_that_disagrees_with_autograd_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = nn.Linear(3, 2), torch.randn(4, 3)
    done = forward_pass(net, parameters(net), x)
    (use,) = done.layers()
    monkeypatch.setattr(use, "_inputs", lambda: 1.01 * x)
    with pytest.raises(NoRule, match="'weight': its rule does not give autograd's gradient"):
        settle(done)
