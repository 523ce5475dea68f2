"""Bad inputs and targets of `BNN` and `observe`: one clear error each, before
anything is changed.
"""

import math
from collections.abc import Callable

import pyro
import pytest
import torch
from conftest import Untouched
from models_table import exponential
from nets import TwoInputs, mlp
from pyro import distributions as dist
from torch import Tensor, nn
from tracing import trace_of

from bayesnn import BNN, likelihoods, priors
from bayesnn.likelihoods import Likelihood
from bayesnn.models import observe
from bayesnn.subset import everything

BATCH = 3


GOOD = torch.zeros(BATCH, 3)


def filled(value: float, *index: int) -> Tensor:
    x = torch.zeros(BATCH, 3)
    x[index] = value
    return x


def dirichlet(outputs: Tensor) -> dist.TorchDistribution:
    return dist.Dirichlet(outputs.exp())


def masked(outputs: Tensor) -> dist.TorchDistribution:
    return dist.Categorical(logits=outputs).mask(torch.ones(len(outputs)).bool())


def pairs(*rows: tuple[float, float]) -> Tensor:
    return torch.tensor(rows)


zeros = (0.0, 0.0)


TARGETS: dict[str, tuple[Likelihood, object, str]] = {
    "nan": (likelihoods.normal(1.0), pairs(zeros, (0.0, math.nan), zeros), r"y is not finite at index \[1, 1\]"),
    "inf": (likelihoods.normal(1.0), pairs(zeros, zeros, (math.inf, 0.0)), r"y is not finite at index \[2, 0\]"),
    "label too large": (
        likelihoods.categorical,
        torch.tensor([0, 2, 1]),
        r"y at index \[1\] is 2, but the network has 2 outputs, for labels 0 to 1",
    ),
    "label negative": (likelihoods.categorical, torch.tensor([0, 1, -1]), r"y at index \[2\] is -1"),
    "label too large, masked": (masked, torch.tensor([0, 2, 1]), r"y at index \[1\] is 2"),
    "float labels": (likelihoods.categorical, torch.zeros(3), r"y is torch.float32, but labels are .* y.long\(\)"),
    "bool labels": (likelihoods.categorical, torch.zeros(3).bool(), r"labels are integers; write y.long\(\)"),
    "labels of shape [batch, 1]": (
        likelihoods.categorical,
        torch.zeros(3, 1).long(),
        r"y has shape \(3, 1\), but the likelihood of these outputs needs \(3,\); write y.reshape\(-1\)",
    ),
    "flat y": (likelihoods.normal(1.0), torch.zeros(6), r"y has shape \(6,\), .* \(3, 2\); write y.reshape\(-1, 2\)"),
    "one target too few": (likelihoods.normal(1.0), torch.zeros(3, 1), r"y has shape \(3, 1\), .* needs \(3, 2\)$"),
    "another batch": (likelihoods.normal(1.0), torch.zeros(4, 2), r"y has shape \(4, 2\), .* needs \(3, 2\)$"),
    "integers": (likelihoods.normal(1.0), torch.zeros(3, 2).long(), r"Normal needs floating point; write y.float\(\)"),
    "halves": (likelihoods.bernoulli, pairs((0.0, 1.0), (0.5, 0.0), zeros), r"y at index \[1, 0\] is 0.5, outside"),
    "negative counts": (likelihoods.poisson, pairs(zeros, zeros, (0.0, -1.0)), r"y at index \[2, 1\] is -1.0, outside"),
    "broken counts": (likelihoods.negative_binomial(), torch.full((3, 2), 1.5), r"y at index \[0, 0\] is 1.5, outside"),
    "user's own": (exponential, pairs((1.0, -2.0), zeros, zeros), r"y at index \[0, 1\] is -2.0, outside"),
    "user's own, with rows": (dirichlet, torch.full((3, 2), 0.7), r"y at index \[0\] is \[0.69.*, 0.69.*\], outside"),
    "list": (likelihoods.categorical, [0, 1, 1], "y must be a tensor, not list"),
}


@pytest.mark.parametrize("case", TARGETS)
def test_targets(case: str, untouched: Untouched) -> None:
    likelihood, y, message = TARGETS[case]
    net = mlp()
    model = BNN(net, everything(net), priors.normal(), likelihood, size=BATCH)
    with untouched(net), pytest.raises((ValueError, TypeError)) as error:
        model(GOOD, y)
    error.match(message.removesuffix("$"))
    if message.endswith("$"):
        assert "write" not in str(error.value)


INPUTS: dict[str, tuple[Callable[[], nn.Module], object, str]] = {
    "nan": (mlp, filled(math.nan, 1, 2), r"x is not finite at index \[1, 2\]: nan"),
    "inf": (mlp, filled(-math.inf, 0, 1), r"x is not finite at index \[0, 1\]: -inf"),
    "in a tuple": (TwoInputs, (GOOD, torch.full((3, 1), math.nan)), r"x is not finite at index \[0, 0\]"),
    "in a dict": (TwoInputs, {"a": GOOD, "b": torch.full((3, 1), math.inf)}, r"not finite at index \[0, 0\]: inf"),
    "no tensor": (mlp, [[0.0, 1.0, 2.0]], "a tensor, a tuple or a dict of tensors is needed, not list"),
    "no examples": (mlp, torch.zeros(0, 3), r"x has no examples: its shape is \(0, 3\)"),
    "wrong width": (mlp, torch.zeros(3, 5), "mat1 and mat2 shapes cannot be multiplied"),
    "wrong precision": (mlp, GOOD.double(), "must have the same dtype"),
}


@pytest.mark.parametrize("case", INPUTS)
def test_inputs(case: str, untouched: Untouched) -> None:
    build, x, message = INPUTS[case]
    net = build()
    model = BNN(net, everything(net), priors.normal(), likelihoods.categorical)
    with untouched(net), pytest.raises((ValueError, TypeError, RuntimeError), match=message):
        model(x, torch.zeros(3, dtype=torch.long))


def test_size_is_checked_in_fitting_and_not_in_prediction() -> None:
    net = mlp()
    model = BNN(net, everything(net), priors.normal(), likelihoods.categorical, size=2)
    with pytest.raises(ValueError, match="size = 2 examples of training data were announced, but one batch has 3"):
        model(GOOD, torch.zeros(3, dtype=torch.long))
    assert model(GOOD).shape == (3, 2)
    assert model.sample(GOOD).shape == (3, 2)


def test_a_likelihood_without_a_batch() -> None:
    with pytest.raises(ValueError, match=r"its distribution has no batch axis for outputs of shape \(3,\)"):
        observe(torch.zeros(3), likelihoods.normal(1.0), torch.zeros(3))


def test_observe_stands_alone() -> None:
    """Any outputs meet targets through it, not a network's only."""
    outputs, y = torch.zeros(4, 1), torch.ones(4, 1)

    def model() -> Tensor:
        return observe(
            outputs + pyro.sample("shift", dist.Normal(0.0, 1.0)), likelihoods.normal(1.0), y, size=8, name="a"
        )

    trace = trace_of(model)
    expected = 2 * dist.Normal(trace.nodes["shift"]["value"], 1.0).log_prob(y).sum()
    torch.testing.assert_close(trace.nodes["a.y"]["log_prob_sum"], expected)
    assert trace.nodes["a.y"]["cond_indep_stack"][0].name == "a.data"
