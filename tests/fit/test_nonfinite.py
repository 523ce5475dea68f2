"""A number that is not finite stops `fit` before the update, with step, place and cause."""

from functools import partial

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoDelta
from torch import nn

from bayesnn.fit import fit

quiet = partial(fit, progress=False, optimizer=partial(torch.optim.SGD, lr=0.1))


class Mean(nn.Module):
    """Squared error of a mean, with a moving average of what it saw."""

    def __init__(self):
        super().__init__()
        self.at = nn.Parameter(torch.zeros(2))
        self.register_buffer("average", torch.zeros(2))

    def forward(self, x, extra=None):
        self.average.lerp_(x.mean(0), 0.5)
        return ((x - self.at) ** 2).sum()


def good(steps=2):
    return [(torch.ones(4, 2),) for _ in range(steps)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_names_the_entry_of_the_batch(value):
    bad = torch.ones(4, 2)
    bad[2, 1] = value
    loss, reference = Mean(), Mean()
    with pytest.raises(FloatingPointError) as caught:
        quiet(loss, [*good(), (bad, {"weights": torch.ones(3)})], epochs=1)
    text = str(caught.value)
    assert "at step 3 (batch 3 of epoch 1)" in text
    assert f"batch[0] is {value} at index [2, 1] (1 of 8 entries are not finite)" in text
    quiet(reference, good(), epochs=1)
    assert all(
        torch.equal(a, b) for a, b in zip(loss.state_dict().values(), reference.state_dict().values(), strict=True)
    )


def test_names_entries_of_dicts_and_tuples():
    bad = torch.ones(3)
    bad[1] = float("nan")
    loss = Mean()
    with pytest.raises(FloatingPointError, match=r"batch\[1\]\['weights'\]\[0\] is nan at index \[1\]"):
        quiet(loss, [*good(), (torch.full((1, 2), torch.inf), {"weights": (bad, "text")})], epochs=1)


def test_names_the_parameter():
    loss = Mean()
    loss.at.data[1] = float("nan")
    with pytest.raises(FloatingPointError, match=r"at step 1 .*parameter at is nan at index \[1\] \(1 of 2 entries"):
        quiet(loss, good(), epochs=1)


def test_says_that_nothing_but_the_loss_is_wrong():
    with pytest.raises(
        FloatingPointError, match=r"loss is inf at step .*every entry .* is finite.*learning rate.*clip="
    ):
        quiet(Mean(), good(100), epochs=1, optimizer=partial(torch.optim.SGD, lr=1e4))


def test_names_the_gradient():
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.good, self.at = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(2))

        def forward(self, x):
            return (self.at.sqrt() * x).sum() + self.good

    loss = Root()
    with pytest.raises(
        FloatingPointError, match=r"the loss is finite but a gradient is not, at step 1 .*that of at is inf"
    ):
        quiet(loss, good(1), epochs=1)
    assert loss.good.item() == 1.0
    assert torch.equal(loss.at, torch.zeros(2))


def test_infinity_is_no_cause_of_its_own():
    """An infinite entry that the loss masks is nobody's business."""

    class Masked(Mean):
        def forward(self, x):
            return super().forward(x.nan_to_num(0.0, 0.0, 0.0))

    quiet(Masked(), [(torch.full((4, 2), torch.inf),)], epochs=1)


def normal_model(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def scaled_model(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(mean * x, 1.0), obs=torch.ones(len(x)))


@pytest.mark.parametrize("model", [normal_model, scaled_model])
@pytest.mark.parametrize("position", [0, 1])
def test_names_the_entry_where_pyros_validation_raises_first(model, position):
    """In the warm-up (first batch) and in training."""
    pyro.clear_param_store()
    batches = [(torch.ones(3),), (torch.ones(3),)]
    batches[position][0][2] = float("nan")
    with pytest.raises(FloatingPointError, match=r"cannot be computed .*batch\[0\] is nan at index \[2\]"):
        quiet(Trace_ELBO()(model, AutoDelta(model)), batches, epochs=1)


def test_errors_of_the_loss_itself_come_through():
    class Broken(Mean):
        def forward(self, x):
            raise RuntimeError("of the user's own")

    with pytest.raises(RuntimeError, match="of the user's own"):
        quiet(Broken(), good(), epochs=1)


def test_errors_of_a_lazy_loss_come_through_in_the_warm_up():
    loss = nn.LazyLinear(2)
    with pytest.raises(TypeError, match="positional argument"):
        quiet(loss, [(torch.ones(1), torch.ones(1))], epochs=1)


def test_the_last_good_state_is_in_the_checkpoint(tmp_path):
    path = tmp_path / "run.pt"
    bad = torch.full((4, 2), float("nan"))
    with pytest.raises(FloatingPointError) as caught:
        quiet(Mean(), [*good(), (bad,), *good()], epochs=2, checkpoint=path)
    assert "fit stopped after step 2" in caught.value.__notes__[0]
    assert str(path) in caught.value.__notes__[0]
    repaired, whole = Mean(), Mean()
    history = quiet(repaired, good(5), epochs=2, checkpoint=path)
    assert history == quiet(whole, good(5), epochs=2)
    assert all(
        torch.equal(a, b) for a, b in zip(repaired.state_dict().values(), whole.state_dict().values(), strict=True)
    )
