"""What `fit` refuses: arguments, losses and loaders that cannot work, each with
what to do instead.
"""

import itertools
from functools import partial

import pyro
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from bayesnn.fit import fit

quiet = partial(fit, progress=False)


class Constant(nn.Module):
    def __init__(self):
        super().__init__()
        self.at = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return self.at * x.mean()


class Sized(Constant):
    def __init__(self, size):
        super().__init__()
        self.model = nn.Module()
        self.model.size = size


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"epochs": 0}, ValueError, "epochs must be an integer of at least 1, not 0"),
        ({"epochs": 1.5}, ValueError, "epochs"),
        ({"every": 0}, ValueError, "every"),
        ({"clip": 0.0}, ValueError, "clip"),
        ({"patience": 2}, ValueError, "give validate="),
        ({"patience": 0, "validate": float}, ValueError, "patience"),
        ({"loss": lambda x: x}, TypeError, "nn.Module"),
        ({"loss": nn.Identity()}, ValueError, "no trainable parameter"),
        ({"loss": Constant().requires_grad_(requires_grad=False)}, ValueError, "no trainable parameter"),
        ({"loss": Sized(7)}, ValueError, "size is 7.*8 training examples.*size=8"),
        ({"loader": []}, ValueError, "loader is empty"),
        ({"loader": DataLoader(torch.ones(3), batch_size=4, drop_last=True)}, ValueError, "loader is empty.*drop_last"),
        ({"loader": iter([torch.ones(1)])}, TypeError, "read only once"),
        ({"loader": itertools.cycle([torch.ones(1)])}, TypeError, "read only once"),
        ({"optimizer": torch.optim.Adam([torch.ones(1)])}, TypeError, "not callable"),
        ({"optimizer": lambda groups: pyro.optim.Adam({"lr": 1.0})}, TypeError, "torch.optim.Adam"),
        ({"groups": lambda name, p: 0.1}, TypeError, "dict of optimiser options"),
        (
            {"groups": lambda name, p: {"learning_rate": 10.0}},
            ValueError,
            r"groups gives 'at' the option 'learning_rate', which Adam .*; did you mean 'lr'\? Its options",
        ),
        ({"groups": lambda name, p: {"weight_decays": 1.0}}, ValueError, "did you mean 'weight_decay'"),
        ({"groups": lambda name, p: {"momentum": 0.9}}, ValueError, r"'momentum', which Adam does not have\. Its"),
        ({"groups": lambda name, p: {"lr": -1e-2}}, ValueError, "'at' the learning rate -0.01, but .* positive"),
        ({"groups": lambda name, p: {"lr": 0.0}}, ValueError, "the learning rate 0.0.*requires_grad to False"),
        ({"groups": lambda name, p: {"lr": float("nan")}}, ValueError, "the learning rate nan"),
        ({"schedule": torch.optim.lr_scheduler.ReduceLROnPlateau}, TypeError, "without a metric"),
        ({"validate": lambda: float("nan")}, FloatingPointError, "validate returned nan after epoch 1"),
    ],
)
def test_bad_arguments(change, error, words):
    arguments = {"loss": Constant(), "loader": DataLoader(torch.ones(8), batch_size=4), "epochs": 1, **change}
    with pytest.raises(error, match=words):
        quiet(arguments.pop("loss"), arguments.pop("loader"), **arguments)


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (lambda at: at * torch.ones(3), TypeError, r"shape \[3\]; sum or average"),
        (lambda at: 1.0, TypeError, "a float"),
        (lambda at: torch.ones(()), ValueError, "no gradient"),
    ],
)
def test_a_loss_must_be_one_number_with_a_gradient(value, error, words):
    loss = Constant()
    loss.forward = lambda x: value(loss.at)
    with pytest.raises(error, match=words):
        quiet(loss, [torch.ones(1)], epochs=1)
