"""`linearised(..., joint=True)`: draws of functions of the linearised network."""

from functools import partial
from typing import Any

import oracle
import pytest
import torch
from conftest import Untouched
from nets import NETS, mlp
from pyro import distributions as dist
from pyro.infer.autoguide import AutoNormal
from snapshot import unchanged
from statistical import assert_mean
from torch import Tensor

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.curvature.tangent import tangent
from bayesnn.guides import Diagonal, Full, Kronecker, Laplace, LowRank, MeanField
from bayesnn.predict import draw, linearised

X = torch.randn(4, 3, dtype=torch.double, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 1, 0])
STRUCTURES: dict[str, Any] = {
    "full": Full,
    "kronecker": Kronecker,
    "diagonal": Diagonal,
    "low rank": partial(LowRank, rank=3),
}


def problem() -> BNN:
    net = mlp().double()
    return BNN(net, subset.everything(net), priors.normal(0.5), likelihoods.categorical)


def double(kind: str) -> tuple[Any, Any]:
    net, x = NETS[kind]()
    x = torch.utils._pytree.tree_map_only(Tensor, lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, x)
    return net.double(), x


@pytest.mark.parametrize("kind", NETS)
def test_the_tangent_equals_the_dense_oracle(kind: str, untouched: Untouched) -> None:
    net, x = double(kind)
    model = BNN(net, subset.everything(net), priors.normal(), likelihoods.categorical)
    values = model.values()
    direction = {site: torch.randn_like(value) for site, value in values.items()}
    with untouched(net):
        found = tangent(model.outputs, values, direction, x)
    J = oracle.jacobian(model.outputs, values, x)
    torch.testing.assert_close(found, J @ oracle.flat(direction))
    assert not found.requires_grad


@pytest.mark.parametrize("kind", NETS)
def test_the_same_weights_at_all_inputs_in_any_chunks(kind: str, untouched: Untouched) -> None:
    """Every draw is f + J (w - m) of one w of the guide."""
    net, x = double(kind)
    model = BNN(net, subset.random(net, 9), priors.normal(0.1), likelihoods.categorical)
    guide = Laplace(model).fit([(x, torch.tensor([0, 1, 1]))])
    with untouched(net):
        torch.manual_seed(1)
        outputs = [linearised(guide, x, 3, joint=True)]
        torch.manual_seed(1)
        outputs.append(linearised(guide, x, 3, joint=True, chunk=2))
        torch.manual_seed(1)
        weights = draw(guide, 3)
    J = oracle.jacobian(model.outputs, model.values(), x)
    for s in range(3):
        step = oracle.flat({site: value[s] for site, value in weights.items()}) - guide.loc
        expected = model.outputs(model.values(), x) + J @ step
        torch.testing.assert_close(outputs[0][s], expected)
        torch.testing.assert_close(outputs[1][s], expected)


def test_layers_without_a_rule_for_forward_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*args: Any) -> None:
        raise NotImplementedError("Trying to use forward AD with _cudnn_rnn that does not support it")

    monkeypatch.setattr("bayesnn.curvature.tangent.jvp", lacking)
    test_the_tangent_equals_the_dense_oracle("lstm", unchanged)
    test_the_same_weights_at_all_inputs_in_any_chunks("tied", unchanged)


def covariance_is(outputs: Tensor, mean: Tensor, covariance: Tensor) -> None:
    flat, mean = outputs.flatten(1), mean.flatten()
    assert_mean(flat, mean)
    centred = flat - mean
    assert_mean(centred.unsqueeze(2) * centred.unsqueeze(1), covariance)


@pytest.mark.parametrize("kind", STRUCTURES)
def test_covariance_between_inputs(kind: str) -> None:
    model = problem()
    guide = Laplace(model, structure=STRUCTURES[kind]).fit([(X, Y)])
    outputs = linearised(guide, X, 4_000, joint=True)
    assert outputs.shape == (4_000, 4, 2)
    J = oracle.jacobian(model.outputs, model.values(), X).flatten(0, 1)
    covariance = J @ guide.covariance @ J.mT
    covariance_is(outputs, model.outputs(model.values(), X), covariance)
    apart = covariance[:2, 2:4].abs().max()
    # inputs do covary: independent draws would be told apart
    assert apart > 0.1 * covariance.diagonal().min()


def test_around_another_mode_and_prior() -> None:
    model = problem()
    at = {site: value + 0.2 for site, value in model.values().items()}
    guide = Laplace(model, at).fit([(X, Y)]).maximise_evidence()
    J = oracle.jacobian(model.outputs, at, X).flatten(0, 1)
    covariance_is(linearised(guide, X, 4_000, joint=True), model.outputs(at, X), J @ guide.covariance @ J.mT)


def test_mean_field() -> None:
    model = problem()
    guide = MeanField(model, scale=0.3)
    J = oracle.jacobian(model.outputs, model.values(), X).flatten(0, 1)
    outputs = linearised(guide, X, 4_000, joint=True)
    assert not outputs.requires_grad
    covariance_is(outputs, model.outputs(model.values(), X), 0.09 * J @ J.mT)


def test_what_is_refused() -> None:
    net = mlp(outputs=1)
    scale = likelihoods.normal(dist.LogNormal(0.0, 1.0))
    model = BNN(net, subset.everything(net), priors.normal(), scale)
    latent = MeanField(model, X.float(), torch.zeros(4, 1))
    for posterior in (latent, AutoNormal(model), {"w": torch.zeros(3, 1)}):
        with pytest.raises(TypeError, match="joint=True needs a guide with a mean of exactly its model's weights"):
            linearised(posterior, X, 3, joint=True)
    guide = Laplace(problem()).fit([(X, Y)])
    with pytest.raises(ValueError, match="x is not finite"):
        linearised(guide, X / 0, 3, joint=True)
