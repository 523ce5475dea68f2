"""The closed form for a last layer: taken where it holds, and the Jacobian's answer everywhere."""

import oracle
import pytest
import torch
from nets import mlp
from torch import Tensor, nn
from torch.nn import functional as F

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.curvature import JacobianRows
from bayesnn.guides import Full, Laplace
from bayesnn.guides.laplace import last_layer
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


CLOSED = ("nothing odd", "keywords", "no derivative in between")
ODD = (
    "log-softmax after it",
    "changed in place after it",
    "twice",
    "its bias twice",
    "its bias doubled",
    "tied bias",
    "the transpose",
    "the transpose alone",
    "a sequence",
    *CLOSED,
)


def moved(model: BNN) -> dict[str, Tensor]:
    """A mode that is not what the network holds."""
    return {site: value + 0.1 for site, value in model.values().items()}


@pytest.mark.parametrize("how", ODD)
@pytest.mark.parametrize("blocks", ["last", "last.weight"])
def test_any_use_of_the_layer_gives_the_dense_answer(how: str, blocks: str) -> None:
    net = Odd(how).double().eval()
    chosen = subset.named(net, *(f"last.{part}" for part in ("weight", "bias"))) if how == "tied bias" else None
    model = BNN(net, chosen or subset.named(net, blocks), priors.normal(1.0), likelihoods.categorical)
    values = moved(model)
    guide = Laplace(model, values).fit([(X[:4], LABELS[:4]), (X[4:], LABELS[4:])])
    H = oracle.ggn(model.outputs, values, X, likelihoods.categorical.fisher)
    assert isinstance(guide.fitted.curvature, Full)
    torch.testing.assert_close(guide.fitted.curvature.matrix, H)
    J = oracle.jacobian(model.outputs, values, X)
    found = guide.output_distribution(X)
    torch.testing.assert_close(found.covariance_matrix, J @ torch.linalg.inv(H + torch.eye(len(H))) @ J.mT)
    log_prob = likelihoods.categorical(model.outputs(values, X)).log_prob(LABELS).sum()
    torch.testing.assert_close(guide.fitted.log_likelihood, log_prob)


@pytest.mark.parametrize("blocks", ["last", "last.weight"])
def test_no_rows_where_the_closed_form_holds(blocks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JacobianRows, "of", None)
    for how in CLOSED:
        net = Odd(how).double().eval()
        model = BNN(net, subset.named(net, blocks), priors.normal(1.0), likelihoods.categorical)
        Laplace(model).fit([(X, LABELS)]).output_distribution(X)


FAMILIES = {"softmax": likelihoods.categorical, "not softmax": likelihoods.bernoulli}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("width", [4, 131])
def test_wide_layers_and_many_batches(width: int, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of the symmetric matrices, gathered batches, and the pairs that
    follow from the others.
    """
    monkeypatch.setattr(last_layer, "ROWS", 5)
    net = mlp(hidden=width, outputs=3).double()
    model = BNN(net, subset.last_layer(net), priors.normal(1.0), FAMILIES[family])
    y = LABELS if family == "softmax" else F.one_hot(LABELS, 3).double()
    guide = Laplace(model).fit([(X[i : i + 2], y[i : i + 2]) for i in range(0, 7, 2)])
    expected = oracle.ggn(model.outputs, model.values(), X, FAMILIES[family].fisher)
    assert isinstance(guide.fitted.curvature, Full)
    torch.testing.assert_close(guide.fitted.curvature.matrix, expected)


def test_fishers_with_and_without_a_null_direction_may_follow_one_another() -> None:
    sums = last_layer.LastLayerCurvature(3, 4, X.new_zeros(()))
    total = torch.zeros(12, 12, dtype=torch.double)
    for family in ("softmax", "not softmax", "softmax"):
        features, outputs = torch.randn(600, 4, dtype=torch.double), torch.randn(600, 3, dtype=torch.double)
        L = FAMILIES[family].fisher(outputs)
        sums.add(features, L)
        total += torch.einsum("ncd,na,nb->cadb", L, features, features).reshape(12, 12)
    torch.testing.assert_close(sums.matrix(bias=False), total)


def test_a_few_entries_of_a_large_layer_take_little() -> None:
    """The matrix of the whole layer would take 100 GiB."""
    net = nn.Linear(400, 300)
    model = BNN(net, subset.random(net, 12), priors.normal(1.0), likelihoods.categorical)
    x, y = torch.randn(5, 400), torch.arange(5)
    guide = Laplace(model).fit([(x, y)])
    expected = oracle.ggn(model.outputs, model.values(), x, likelihoods.categorical.fisher)
    assert isinstance(guide.fitted.curvature, Full)
    torch.testing.assert_close(guide.fitted.curvature.matrix.float(), expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("blocks", ["2", "0"], ids=["last", "first"])
def test_many_inputs_are_predicted_in_parts(blocks: str) -> None:
    net = mlp(outputs=3).double()
    model = BNN(net, subset.named(net, blocks), priors.normal(1.0), likelihoods.categorical)
    guide = Laplace(model).fit([(X, LABELS)])
    x = torch.randn(600, 3, dtype=torch.double)
    parts = [guide.output_distribution(part).covariance_matrix for part in x.split(100)]
    torch.testing.assert_close(guide.output_distribution(x).covariance_matrix, torch.cat(parts))


def test_a_named_model_has_the_same_curvature() -> None:
    net = mlp(outputs=3).double()
    found = []
    for name in ("", "net"):
        chosen: Subset = subset.random(
            net, 9, within=subset.last_layer(net), generator=torch.Generator().manual_seed(0)
        )
        model = BNN(net, chosen, priors.normal(1.0), likelihoods.categorical, name=name)
        found.append(Laplace(model).fit([(X, LABELS)]).covariance)
    assert torch.equal(*found)
