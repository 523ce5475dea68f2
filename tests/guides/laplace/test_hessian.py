"""The exact Hessian as a structure of the Laplace guide, and the distance of
its weights to a mode.
"""

from functools import partial
from typing import Any

import oracle
import pytest
import torch
from conftest import Untouched
from laplace_problems import LIKELIHOODS, TARGETS, golden, hessian, log_joint, mode
from nets import NETS, Squared, mlp
from torch import Tensor, nn

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.functional.transforms import transformable
from bayesnn.guides import Diagonal, Full, Hessian, Kronecker, Laplace, LowRank
from bayesnn.guides.laplace import distance_to_mode


def classification(scale: float = 0.3) -> tuple[BNN, Tensor, Tensor]:
    """A prior that is narrow enough for every curvature."""
    net = mlp(outputs=3).double()
    model = BNN(net, subset.everything(net), priors.normal(scale), likelihoods.categorical)
    return model, torch.randn(7, 3, dtype=torch.double), TARGETS["categorical"]()


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("some", [False, True], ids=["all", "some"])
def test_equals_the_dense_oracle(kind: str, some: bool, untouched: Untouched) -> None:
    net, x = NETS[kind]()
    net = net.double()
    x = torch.utils._pytree.tree_map_only(Tensor, lambda leaf: leaf.double() if leaf.is_floating_point() else leaf, x)
    chosen = subset.random(net, 9) if some else subset.everything(net)
    model = BNN(net, chosen, priors.normal(0.1), likelihoods.categorical)
    y = torch.tensor([0, 1, 1])
    with untouched(net):
        guide = Laplace(model, structure=Hessian).fit([(x, y)])
    assert isinstance(guide.fitted.curvature, Hessian)

    def log_likelihood(outputs: Tensor) -> Tensor:
        return likelihoods.categorical(outputs).log_prob(y).sum()

    with transformable(torch.device("cpu")):  # attention
        H = oracle.hessian(model.outputs, model.values(), x, log_likelihood)
    torch.testing.assert_close(guide.fitted.curvature.H, H)
    torch.testing.assert_close(guide.covariance, torch.linalg.inv(H + 100 * torch.eye(len(H)).double()))


def test_batches_size_and_evidence() -> None:
    model, x, y = classification()
    larger = BNN(model.net, model.subset, model.prior, model.likelihood, size=14)
    guide = Laplace(larger, structure=Hessian).fit([(x[:3], y[:3]), (x[3:], y[3:])])
    H = hessian(model, model.values(), torch.cat([x, x]), torch.cat([y, y]))
    torch.testing.assert_close(guide.covariance, torch.linalg.inv(H))
    joint = log_joint(model, model.values(), torch.cat([x, x]), torch.cat([y, y]))
    expected = joint + 0.5 * len(H) * torch.log(torch.tensor(2 * torch.pi).double()) - 0.5 * H.logdet()
    torch.testing.assert_close(guide.log_evidence(), expected)
    structure, precision = guide.fitted.curvature, guide.fitted.prior_precision
    assert structure is not None
    torch.testing.assert_close(structure.log_ratio(precision), structure.spectrum(precision).log1p().sum())
    updated = Laplace(model, structure=Hessian).fit([(x, y)]).update([(x, y)])
    torch.testing.assert_close(updated.covariance, guide.covariance)


@pytest.mark.parametrize("family", TARGETS)
def test_equals_full_on_a_linear_last_layer(family: str) -> None:
    net = mlp(outputs=3).double()
    model = BNN(net, subset.last_layer(net), priors.normal(0.7), LIKELIHOODS[family])
    x, y = torch.randn(7, 3, dtype=torch.double), TARGETS[family]()
    guides = [Laplace(model, structure=structure).fit([(x, y)]) for structure in (Full, Hessian)]
    torch.testing.assert_close(guides[0].covariance, guides[1].covariance)
    torch.testing.assert_close(guides[0].log_evidence(), guides[1].log_evidence())
    best = [guide.maximise_evidence() for guide in guides]
    torch.testing.assert_close(best[0].log_evidence(), best[1].log_evidence())


def test_it_differs_from_gauss_newton_elsewhere() -> None:
    model, x, y = classification()
    full, exact = (Laplace(model, structure=s).fit([(x, y)]).covariance for s in (Full, Hessian))
    assert not torch.allclose(full, exact, rtol=1e-2)


def test_an_indefinite_hessian_is_refused_with_its_smallest_eigenvalue() -> None:
    model, x, y = classification(scale=30.0)
    guide = Laplace(model, structure=Hessian).fit([(x, y)])
    smallest = torch.linalg.eigvalsh(hessian(model, model.values(), x, y))[0].item()
    assert smallest < 0
    said = rf"smallest eigenvalue is {smallest:.3g}, so the weights are not at a maximum .* or use structure=Full"
    for ask in (
        lambda: guide.covariance,
        guide.log_evidence,
        lambda: guide.fitted.curvature.log_ratio(guide.fitted.prior_precision),
    ):
        with pytest.raises(ValueError, match=said):
            ask()
    assert torch.isfinite(Laplace(model).fit([(x, y)]).covariance).all()


def test_a_layer_without_a_second_derivative_is_refused() -> None:
    net = nn.Sequential(nn.Linear(3, 4), Squared(), nn.Linear(4, 2)).double()
    model = BNN(net, subset.everything(net), priors.normal(0.1), likelihoods.categorical)
    with pytest.raises(
        ValueError, match="not symmetric, so a layer cannot be differentiated twice; use structure=Full"
    ):
        Laplace(model, structure=Hessian).fit([(torch.randn(5, 3).double(), torch.tensor([0, 1, 0, 1, 1]))])


def test_a_state_dict_comes_back() -> None:
    model, x, y = classification()
    guide = Laplace(model, structure=Hessian).fit([(x, y)])
    other = Laplace(model, structure=Hessian)
    other.load_state_dict(guide.state_dict())
    torch.testing.assert_close(other.covariance, guide.covariance)
    with pytest.raises(ValueError, match="this state has the structure Hessian"):
        Laplace(model).load_state_dict(guide.state_dict())


STRUCTURES: dict[str, Any] = {
    "full": Full,
    "kronecker": Kronecker,
    "diagonal": Diagonal,
    "low rank": partial(LowRank, rank=3),
    "hessian": Hessian,
}


@pytest.mark.parametrize("kind", STRUCTURES)
@pytest.mark.parametrize("size", [None, 21])
def test_distance_to_the_mode(kind: str, size: int | None, untouched: Untouched) -> None:
    model, x, y = classification()
    model = BNN(model.net, model.subset, model.prior, model.likelihood, size=size)
    guide = Laplace(model, structure=STRUCTURES[kind]).fit([(x, y)])
    values = model.values()

    def total(vector: Tensor) -> Tensor:
        return log_joint(model, oracle.unflat(vector, values), x, y)  # scaled by size

    g = torch.autograd.functional.jacobian(total, oracle.flat(values))
    with untouched(model.net):
        found = distance_to_mode(guide, [(x[:2], y[:2]), (x[2:], y[2:])])
    assert found.gradient == pytest.approx(g.norm().item())
    assert found.deviations == pytest.approx((g @ guide.covariance @ g).sqrt().item())


def test_the_distance_of_a_quadratic_is_exact() -> None:
    """The maximum lies so many standard deviations away, and is higher by half the square."""
    model, x, y = golden()
    best = mode(model, x, y)
    assert max(distance_to_mode(Laplace(model, best).fit([(x, y)]), [(x, y)])) < 1e-8
    off = {site: value + torch.tensor([[0.3, -0.2]]).double() for site, value in best.items()}
    guide = Laplace(model, off).fit([(x, y)])
    shift = guide.loc - oracle.flat(best)
    found = distance_to_mode(guide, [(x, y)]).deviations
    assert found == pytest.approx((shift @ torch.linalg.inv(guide.covariance) @ shift).sqrt().item())
    gain = log_joint(model, best, x, y) - log_joint(model, off, x, y)
    assert gain.item() == pytest.approx(found**2 / 2)
    at_mode = Laplace(model, best).fit([(x, y)]).log_evidence()
    torch.testing.assert_close(at_mode - guide.log_evidence(), gain)


def test_under_the_fitted_prior_and_noise() -> None:
    model, x, y = golden()
    off = {"weight": torch.tensor([[0.9, 0.4]]).double()}
    best = Laplace(model, off).fit([(x, y)]).maximise_evidence(fit_noise=True)
    assert best.fitted.factor != 1
    g = torch.autograd.functional.jacobian(lambda w: log_joint(best.model, {"weight": w}, x, y), off["weight"])
    found = distance_to_mode(best, [(x, y)])
    assert found.gradient == pytest.approx(g.norm().item())
    assert found.deviations == pytest.approx((g @ best.covariance @ g.T).sqrt().item())


def test_before_a_fit_there_is_no_distance() -> None:
    model, x, y = golden()
    with pytest.raises(ValueError, match=r"call fit\(loader\) first"):
        distance_to_mode(Laplace(model), [(x, y)])


def test_a_size_beyond_the_examples_makes_an_indefinite_precision_an_error_not_a_nan() -> None:
    """H + P is positive definite as summed, and 5 H + P is not."""
    model, x, y = classification(0.3)
    H = Laplace(model, structure=Hessian).fit([(x, y)]).fitted.curvature.H
    smallest = torch.linalg.eigvalsh(H)[0]
    assert smallest < 0
    wider = BNN(model.net, model.subset, priors.normal(float((-2 / smallest) ** 0.5) / 2), model.likelihood, size=7)
    assert Laplace(wider, structure=Hessian).fit([(x, y)]).log_evidence().isfinite()
    larger = BNN(model.net, model.subset, wider.prior, model.likelihood, size=70)
    guide = Laplace(larger, structure=Hessian).fit([(x, y)])
    for ask in (guide.log_evidence, lambda: guide.posterior):
        with pytest.raises(ValueError, match=r"the precision H \+ P is not positive definite"):
            ask()
