"""The study of variational inference: its weight decay, temperature, search and
tables mean what they say.
"""

import math
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from bayesnn import priors
from bayesnn.guides import MeanField, VariationalLaplaceELBO

from examples.studies.common.predictors import cooled, softmax
from examples.studies.common.training import Setting, Task, bayesian, decay, network
from examples.studies.variational_digits.choice import best, candidates
from examples.studies.variational_digits.methods import Method


def test_weight_decay_is_the_prior() -> None:
    net = network(0)
    for name, parameter in net.named_parameters():
        leaf = parameter.detach().clone().requires_grad_()
        (-priors.fan_in(net, 3.0)(name, leaf).log_prob(leaf).sum() / 50).backward()
        torch.testing.assert_close(leaf.grad, decay(net, name, Setting(3.0), 50) * leaf.detach())
        assert decay(net, name, Setting(math.inf), 50) == 0.0


def test_one_temperature_divides_logits() -> None:
    net, x = torch.nn.Linear(3, 4), torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(cooled(lambda x: softmax(net, x), 2.5, x)[0], (net(x) / 2.5).softmax(-1))


def test_kl_weight_by_counting_images_is_that_of_the_objective() -> None:
    net, x, y = network(0), torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    gradients = []
    for elbo in (VariationalLaplaceELBO(kl_weight=0.1), VariationalLaplaceELBO()):
        size = 40 if elbo.kl_weight < 1 else 400
        model = bayesian(net, Setting(2.0), size)
        guide = MeanField(model)
        torch.manual_seed(0)
        elbo(model, guide)(x, y).backward()
        gradients.append(torch.cat([guide.loc.grad, guide.log_scale.grad]) / size)  # type: ignore[list-item]
    torch.testing.assert_close(gradients[0], gradients[1])


def test_search_goes_on_from_the_best_kl_weight() -> None:
    def fit(task: Task, setting: Setting) -> dict[str, Any]:
        right = math.exp(-abs(math.log(setting.kl_weight / 0.03)) - abs(setting.gain - 2))
        return {"": lambda x: torch.tensor([[[right, 1 - right]]])}

    nothing = Task(TensorDataset(torch.zeros(1)), 0, 1)
    method = Method(fit, [Setting(1.0, weight) for weight in (1.0, 0.03, 0.01)], (2.0, 4.0))
    found = candidates("test", method, nothing, (torch.zeros(1), torch.tensor([0])))
    assert [(one.setting.gain, one.setting.kl_weight) for one in found] == [
        (1.0, 1.0), (1.0, 0.03), (1.0, 0.01), (2.0, 0.03), (4.0, 0.03)
    ]  # fmt: skip
    assert best(found) is found[3]
    assert found[1].loss == pytest.approx(1.0)
    assert best(found, lambda setting: setting.kl_weight == 1.0) is found[0]
