"""One block of a Laplace approximation with the others at the mode, and its k-hat."""

from functools import partial
from typing import Any

import pyro
import pytest
import torch
from nets import mlp
from pyro import distributions as dist
from torch import Tensor

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.arviz import khat, to_arviz
from bayesnn.guides import Diagonal, Full, Kronecker, Laplace, LowRank
from bayesnn.guides.laplace import BlockConditional

X = torch.randn(9, 3, dtype=torch.double, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 2, 1, 0, 1, 2, 0])
STRUCTURES = {"full": Full, "kronecker": Kronecker, "diagonal": Diagonal, "low rank": partial(LowRank, rank=31)}


def fitted(structure: Any) -> Laplace:
    net = mlp(outputs=3).double()
    model = BNN(net, subset.everything(net), priors.normal(0.7), likelihoods.categorical, name="net")
    return Laplace(model, structure=structure).fit([(X, Y)])


@pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)
def test_its_density_is_that_of_the_joint_normal_given_the_rest(structure: Any) -> None:
    guide = fitted(structure)
    precision = torch.linalg.inv(guide.covariance)
    starts = {"net.0.weight": 0, "net.0.bias": 12, "net.2.weight": 16, "net.2.bias": 28}
    for site, start in starts.items():
        loc = guide.mode()[site].flatten()
        own = precision[start : start + len(loc), start : start + len(loc)]
        conditional = dist.MultivariateNormal(loc, precision_matrix=own)
        pyro.set_rng_seed(0)
        trace = pyro.poutine.trace(BlockConditional(guide, site)).get_trace(X, Y)
        trace.compute_log_prob()
        value: Tensor = trace.nodes[site]["value"]
        expected = conditional.log_prob(value.flatten())
        torch.testing.assert_close(trace.log_prob_sum(), expected, rtol=1e-6, atol=0)
        for other, mode in guide.mode().items():
            assert torch.equal(trace.nodes[other]["value"], mode) is (other != site)


def test_khat_of_a_block_whose_posterior_is_normal() -> None:
    """A linear last layer with a normal likelihood: its weights given the rest
    are exactly normal.
    """
    net = mlp(outputs=1).double()
    model = BNN(net, subset.everything(net), priors.normal(0.7), likelihoods.normal(0.5))
    y = torch.randn(9, 1, dtype=torch.double)
    last = BNN(net, subset.last_layer(net), priors.normal(0.7), likelihoods.normal(0.5))
    solved = Laplace(last).fit([(X, y)])
    step = solved.covariance @ _gradient(last, y)
    mode = model.values()
    mode["2.weight"] = mode["2.weight"] + step[:4].reshape(1, 4)
    mode["2.bias"] = mode["2.bias"] + step[4:]
    guide = Laplace(model, mode).fit([(X, y)])
    found = {
        site: khat(to_arviz(BlockConditional(guide, site), X, y, model=model, draws=200)).item() for site in model.sites
    }
    assert found["2.weight"] == found["2.bias"] == -float("inf")
    assert found["0.weight"] > -float("inf")


def _gradient(model: BNN, y: Tensor) -> Tensor:
    values = {site: value.requires_grad_() for site, value in model.values().items()}
    joint = pyro.poutine.trace(pyro.poutine.condition(model, values)).get_trace(X, y).log_prob_sum()
    return torch.cat([g.flatten() for g in torch.autograd.grad(joint, list(values.values()))])


def test_no_such_block() -> None:
    with pytest.raises(ValueError, match=r"the guide has no block '0\.weight'; it has net\.0\.weight"):
        BlockConditional(fitted(Full), "0.weight")
