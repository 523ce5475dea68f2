"""What the Laplace guide refuses, saying how to repair it, and what it holds on
to when it does.
"""

import copy
from typing import Any

import pytest
import torch
from nets import NETS, mlp
from pyro import distributions as dist
from torch import Tensor, nn

from bayesnn import BNN, learned, likelihoods, priors, subset
from bayesnn.functional import memory
from bayesnn.guides import Laplace

NAN, INF = float("nan"), float("inf")
X, Y = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 1, 0, 1, 0, 1])


def classification(**options: Any) -> BNN:
    net = mlp()
    chosen = {"prior": priors.normal(0.7), "likelihood": likelihoods.categorical, **options}
    return BNN(net, subset.last_layer(net), **chosen)


def at(tensor: Tensor, index: tuple[int, ...], value: float) -> Tensor:
    changed = tensor.clone()
    changed[index] = value
    return changed


DATA = {
    "empty": ([], "the loader is empty"),
    "no examples": ([(X[:0], Y[:0])], "x has no examples"),
    "nan in x": ([(X, Y), (at(X, (4, 1), NAN), Y)], r"x is not finite at index \[4, 1\]: nan"),
    "infinity in x": ([(at(X, (0, 2), -INF), Y)], r"x is not finite at index \[0, 2\]: -inf"),
    "label": ([(X, at(Y, (3,), 2))], r"y at index \[3\] is 2, but the network has 2 outputs"),
    "labels as numbers": ([(X, Y.float())], r"labels are integers; write y.long\(\)"),
    "shape of y": ([(X, Y.unsqueeze(1))], r"y has shape \(7, 1\).*write y.reshape\(-1\)"),
}


@pytest.mark.parametrize("kind", DATA)
def test_bad_data(kind: str) -> None:
    """And the posterior that was fitted before stays."""
    data, message = DATA[kind]
    guide = Laplace(classification()).fit([(X, Y)])
    before = copy.deepcopy(guide.state_dict())
    with pytest.raises(ValueError, match=message) as caught:
        guide.fit(data)
    if kind == "nan in x":
        assert caught.value.__notes__ == ["Laplace.fit: in batch 1 of the loader, counted from 0"]
    for name, value in guide.state_dict().items():
        assert value == before[name] if name == "_extra_state" else torch.equal(value, before[name])


def test_bad_targets_of_regression() -> None:
    net = mlp(outputs=1)
    guide = Laplace(BNN(net, subset.last_layer(net), priors.normal(1.0), likelihoods.normal(0.5)))
    with pytest.raises(ValueError, match=r"y is not finite at index \[2, 0\]"):
        guide.fit([(X, at(X[:, :1], (2, 0), NAN))])
    with pytest.raises(TypeError, match="y must be a tensor, not list"):
        guide.fit([(X, [0.0] * 7)])


def test_a_size_below_the_data() -> None:
    seen = []

    def loader() -> Any:
        for start in (0, 3, 6):
            seen.append(start)
            yield X[start : start + 3], Y[start : start + 3]

    with pytest.raises(ValueError, match="the model's size is 5, but the loader has more examples: 6 so far"):
        Laplace(classification(size=5)).fit(loader())
    assert seen == [0, 3]  # it does not wait for the end


class Bare(nn.Module):
    """A likelihood without a Fisher information."""

    def forward(self, outputs: Tensor) -> dist.TorchDistribution:
        return dist.Categorical(logits=outputs)


class Wrong(Bare):
    """One whose Fisher information is not what it should be."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def fisher(self, outputs: Tensor) -> Tensor:
        return torch.diag_embed(torch.full_like(outputs, self.value))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"likelihood": Bare()}, "has no Fisher information of its outputs; give it a method fisher"),
        ({"prior": priors.laplace(1.0)}, "the prior of '2.weight' is Laplace; a normal prior is needed"),
        ({"prior": priors.student_t()}, "the prior of '2.weight' is StudentT"),
        (
            {"prior": priors.hierarchical(scale=dist.HalfCauchy(1.0))},
            "the prior has the latent site '2.weight_scale'; a fixed normal prior is needed",
        ),
    ],
)
def test_models_without_a_laplace_approximation(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Laplace(classification(**options))


def test_a_latent_noise_scale() -> None:
    net = mlp()
    for chosen in (subset.last_layer(net), subset.everything(net)):
        model = BNN(net, chosen, priors.normal(1.0), likelihoods.normal(dist.HalfCauchy(1.0)))
        with pytest.raises(
            ValueError, match="the likelihood has the latent site 'y_scale'; give it a fixed or learned"
        ):
            Laplace(model).fit([(X, X[:, :2])])


def test_curvatures_that_are_none() -> None:
    with pytest.raises(ValueError, match="the curvature is not finite"):
        Laplace(classification(likelihood=Wrong(NAN))).fit([(X, Y)])
    with pytest.raises(ValueError, match=r"not positive definite: the curvature has the eigenvalue -.*semi-definite"):
        Laplace(classification(likelihood=Wrong(-1.0))).fit([(X, Y)])
    model = classification()
    mode = {site: torch.full_like(value, INF) for site, value in model.values().items()}
    with pytest.raises(ValueError, match="the network's outputs at the mode are not finite for example 0"):
        Laplace(model, mode).fit([(torch.ones(2, 3), Y[:2])])


def test_modes() -> None:
    model = classification()
    with pytest.raises(ValueError, match=r"the mode has no value for '2\.bias'"):
        Laplace(model, {"2.weight": torch.zeros(2, 4)})
    with pytest.raises(ValueError, match=r"the mode of '2.weight' has shape \(4, 2\), the block has \(2, 4\)"):
        Laplace(model, {"2.weight": torch.zeros(4, 2), "2.bias": torch.zeros(2)})


def test_memory_is_asked_for_before_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 3_000)
    guide = Laplace(classification())
    with pytest.raises(MemoryError, match=r"the full covariance of 10 weights needs .* GiB.*choose a smaller subset"):
        guide.fit(iter(()))  # not even the data are touched
    monkeypatch.setattr(memory, "available", lambda device: 4_000)
    guide.fit([(X, Y)])


@pytest.mark.parametrize(
    "use",
    [
        lambda guide: guide(),
        lambda guide: guide.covariance,
        lambda guide: guide.log_evidence(),
        lambda guide: guide.maximise_evidence(),
        lambda guide: guide.output_distribution(X),
    ],
)
def test_use_before_fit(use: Any) -> None:
    with pytest.raises(ValueError, match=r"Laplace: call fit\(loader\) first"):
        use(Laplace(classification()))


def test_batch_norm_in_training_mode() -> None:
    net, x = NETS["batch_norm"]()
    guide = Laplace(BNN(net, subset.last_layer(net), priors.normal(1.0), likelihoods.categorical))
    net.train()
    with pytest.raises(ValueError, match=r"Laplace: '1' \(BatchNorm1d\) is in training mode.*call net.eval\(\)"):
        guide.fit([(x, Y[:3])])
    net.eval()
    guide.fit([(x, Y[:3])])
    net.train()
    with pytest.raises(ValueError, match=r"Laplace\.output_distribution: '1'"):
        guide.output_distribution(x)


def test_inputs_of_the_output_distribution() -> None:
    guide = Laplace(classification()).fit([(X, Y)])
    with pytest.raises(ValueError, match=r"x is not finite at index \[1, 1\]"):
        guide.output_distribution(at(X, (1, 1), NAN))


def test_a_state_under_a_prior_with_other_means_is_refused_with_the_remedy() -> None:
    model = classification()
    guide = Laplace(model).fit([(X, Y)])
    moved = Laplace(model.with_prior(priors.around({n: p + 1 for n, p in model.net.named_parameters()}, 0.7)))
    moved.fit([(X, Y)])
    before = moved.scale_tril.clone()
    with pytest.raises(ValueError, match="under a prior with other means; make the guide from the model that has it"):
        moved.load_state_dict(guide.state_dict())
    assert torch.equal(moved.scale_tril, before)


def test_a_state_without_a_fit() -> None:
    model = classification()
    fitted = Laplace(model).fit([(X, Y)])
    fitted.load_state_dict(Laplace(model).state_dict())
    with pytest.raises(ValueError, match="call fit"):
        fitted()


def test_a_state_in_double_precision_serves_a_guide_in_single() -> None:
    model = classification()
    guide = Laplace(model).fit([(X, Y)])
    state = {name: value.double() if isinstance(value, Tensor) else value for name, value in guide.state_dict().items()}
    other = Laplace(model)
    other.load_state_dict(state)
    assert other()["2.weight"].dtype == torch.float
    assert other.log_evidence().dtype == torch.double


def test_a_learned_prior_scale_counts_as_it_is_at_the_fit() -> None:
    scale = learned(0.3)
    model = classification(prior=priors.normal(scale))
    guide = Laplace(model)
    with torch.no_grad():
        scale.log_value.fill_(0.0)
    guide.fit([(X, Y)])
    expected = Laplace(model.with_prior(priors.normal(1.0))).fit([(X, Y)])
    torch.testing.assert_close(guide.covariance, expected.covariance)
