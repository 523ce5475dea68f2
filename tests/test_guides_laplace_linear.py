"""The closed form for a last layer: taken where it holds, and the Jacobian's answer everywhere."""

import oracle
import pytest
import torch
from nets import mlp
from torch import Tensor, nn
from torch.nn import functional as F

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.guides import laplace_curvature
from bayesnn.guides.laplace_curvature import Curvature, LinearCurvature, curvature_of
from bayesnn.subset import Subset

X = torch.randn(7, 3, dtype=torch.double, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 2, 1, 0, 1])


class Odd(nn.Module):
    """A network whose last linear layer is used in an unusual way."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.first = nn.Linear(3, 3)
        self.last = nn.Linear(3, 3)
        if how == "tied bias":
            self.first.bias = self.last.bias

    def forward(self, x: Tensor) -> Tensor:
        h, weight, bias = self.first(x).tanh(), self.last.weight, self.last.bias
        match self.how:
            case "log-softmax after it":
                return self.last(h).log_softmax(-1)
            case "changed in place after it":
                return self.last(h).exp_()
            case "twice":
                return self.last(self.last(h).tanh())
            case "its bias twice":
                return self.last(h + bias)
            case "its bias doubled":
                return F.linear(h, weight, 2 * bias)
            case "keywords":
                return F.linear(h, weight=weight, bias=bias)
            case "the transpose":
                return h @ weight + bias
            case "the transpose alone":
                return h @ weight
            case "a sequence":
                return self.last(h.unsqueeze(1)).squeeze(1)
            case "no derivative in between":
                return self.last(h.detach())
        return self.last(h)


ODD = (
    "nothing odd",
    "log-softmax after it",
    "changed in place after it",
    "twice",
    "its bias twice",
    "its bias doubled",
    "tied bias",
    "keywords",
    "the transpose",
    "the transpose alone",
    "a sequence",
    "no derivative in between",
)


def model_of(net: nn.Module, chosen: Subset) -> BNN:
    return BNN(net, chosen, priors.normal(1.0), likelihoods.categorical)


def moved(model: BNN) -> dict[str, Tensor]:
    """A mode that is not what the network holds."""
    return {site: value + 0.1 for site, value in model.values().items()}


@pytest.mark.parametrize("how", ODD)
@pytest.mark.parametrize("blocks", ["last", "last.weight"])
def test_any_use_of_the_layer_gives_the_dense_answer(how: str, blocks: str) -> None:
    net = Odd(how).double().eval()
    chosen = subset.named(net, *(f"last.{part}" for part in ("weight", "bias"))) if how == "tied bias" else None
    model = model_of(net, chosen if chosen is not None else subset.named(net, blocks))
    values = moved(model)
    curvature = curvature_of(model, values)
    assert curvature.add(X[:4], LABELS[:4]) + curvature.add(X[4:], LABELS[4:]) == 7
    expected = oracle.ggn(model.outputs, values, X, likelihoods.categorical.fisher)
    torch.testing.assert_close(curvature.matrix, expected)
    log_prob = likelihoods.categorical(model.outputs(values, X)).log_prob(LABELS).sum()
    torch.testing.assert_close(curvature.log_likelihood, log_prob)


SUBSETS = {
    "both": lambda net: subset.last_layer(net),
    "weight": lambda net: subset.named(net, "2.weight"),
    "some": lambda net: subset.random(net, 9, within=subset.last_layer(net)),
    "some weights, all biases": lambda net: Subset(
        subset.last_layer(net).shape, {"2.weight": torch.tensor([0, 5, 6, 11]), "2.bias": None}
    ),
}


@pytest.mark.parametrize("which", SUBSETS)
def test_no_jacobian_where_the_closed_form_holds(which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = mlp(outputs=3).double()
    model = model_of(net, SUBSETS[which](net))
    values = moved(model)
    slow = Curvature(model, values)
    slow.add(X, LABELS)
    monkeypatch.setattr(laplace_curvature, "ggn", None)
    fast = curvature_of(model, values)
    assert isinstance(fast, LinearCurvature)
    fast.add(X, LABELS)
    torch.testing.assert_close(fast.matrix, slow.matrix)


def test_a_few_entries_of_a_large_layer_take_little() -> None:
    """The matrix of the whole layer would take 100 GiB."""
    net = nn.Linear(400, 300)
    model = model_of(net, subset.random(net, 12))
    x, y = torch.randn(5, 400), torch.arange(5)
    curvature = curvature_of(model, model.values())
    curvature.add(x, y)
    slow = Curvature(model, model.values())
    slow.add(x, y)
    torch.testing.assert_close(curvature.matrix, slow.matrix, rtol=1e-4, atol=1e-8)


def test_a_named_model_has_the_same_curvature() -> None:
    net = mlp(outputs=3).double()
    found = []
    for name in ("", "net"):
        chosen = subset.random(net, 9, within=subset.last_layer(net), generator=torch.Generator().manual_seed(0))
        model = BNN(net, chosen, priors.normal(1.0), likelihoods.categorical, name=name)
        curvature = curvature_of(model, model.values())
        curvature.add(X, LABELS)
        found.append(curvature.matrix)
    assert torch.equal(*found)


def test_other_subsets_take_jacobians() -> None:
    net = mlp(outputs=3)
    for chosen in (subset.everything(net), subset.named(net, "2.bias"), subset.named(net, "0", "2")):
        model = model_of(net, chosen)
        assert type(curvature_of(model, model.values())) is Curvature
