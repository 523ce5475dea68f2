"""Whole networks: members in one pass are the members alone, and what cannot be
converted is named.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nets import NETS, TORCHVISION, Case, Tied
from rank_one_problems import normed
from torch import Tensor, nn

from bayesnn import likelihoods
from bayesnn.functional import call
from bayesnn.guides import RankOneELBO, RankOneGuide
from bayesnn.models import RankOneEnsemble, batch_ensemble, latent_rank_one
from bayesnn.models.rank_one import MemberNorm, Output, RankOneNet, by_member, near_one, tile

M = 3


def segmentation() -> Case:
    from torchvision.models.segmentation import deeplabv3_resnet50

    net = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=3, aux_loss=False)
    return Output(net, "out").eval(), torch.randn(2, 3, 24, 24)


def resnet50() -> Case:
    from torchvision.models import resnet50

    return resnet50(num_classes=10).eval(), torch.randn(2, 3, 32, 32)


SHARED: dict[str, Any] = {
    "lstm": (nn.LSTM,),
    "two names, lstm": (nn.LSTM,),
    "tied words": ("embedding", "decoder"),
    "embedding": ("embedding",),
    "attention": (nn.MultiheadAttention,),
    "encoder": (nn.TransformerEncoderLayer,),
    "vit": (nn.MultiheadAttention, "encoder.pos_embedding"),
}
CASES: dict[str, Callable[[], Case]] = {
    **NETS,
    "resnet18": TORCHVISION["resnet18"],
    "densenet": TORCHVISION["densenet"],
    "vit": TORCHVISION["vit"],
    "resnet50": resnet50,
    "deeplabv3": segmentation,
    "normed": lambda: (normed(), torch.randn(2, 1, 6, 6)),
}
every_case = pytest.mark.parametrize("kind", CASES)


@torch.no_grad()
def assert_members_are_alone(net: RankOneNet, x: Any) -> None:
    """Every block of the tiled pass is that member's dense network, and members differ."""
    blocks = by_member(net.rows(tile(x, net.members)), net.members)
    scale = blocks.abs().max()
    for j, block in enumerate(blocks):
        alone = call(net.plain, net.dense(j), x)
        assert (alone - block).abs().max() < 2e-5 * scale
    assert (blocks[0] - blocks[1]).abs().max() > 1e-3 * scale


@every_case
def test_blocks_are_the_members_alone(kind: str, untouched: Any) -> None:
    net, x = CASES[kind]()
    with untouched(net):
        # dense members of 40 million weights
        members = 2 if kind in ("resnet50", "deeplabv3") else M
        ensemble = batch_ensemble(net, members, shared=SHARED.get(kind, ()), per_member_norm=kind != "densenet")
        for part in ensemble.modules():
            if isinstance(part, MemberNorm):  # as after training
                with torch.no_grad():
                    for vector in (part.weight, part.bias, part.running_mean, part.running_var):
                        assert vector is not None
                        vector += 0.1 * torch.rand_like(vector)
        assert_members_are_alone(ensemble, x)


def test_a_member_is_a_plain_network() -> None:
    net, x = NETS["batch_norm"]()
    ensemble = batch_ensemble(net.train(), M, per_member_norm=True)
    ensemble(torch.randn(8, 3))  # statistics of the members' own
    ensemble.eval()
    for j, block in enumerate(ensemble(x)):
        member = ensemble.member(j)
        assert [type(part) for part in member.modules()] == [type(part) for part in net.modules()]
        assert not member.training
        assert member.state_dict().keys() == net.state_dict().keys()
        torch.testing.assert_close(member(x), block)
        member[0].weight.data.zero_()  # type: ignore[index, union-attr, operator]
    torch.testing.assert_close(ensemble.member(0)(x), ensemble(x)[0])  # copies
    with pytest.raises(ValueError, match="there are members 0 to 2, not 3"):
        ensemble.member(3)


def test_layers_that_share_a_matrix_keep_it_shared() -> None:
    net = Tied()
    ensemble: Any = batch_ensemble(net, M)
    assert ensemble.net.encoder.layer.weight is ensemble.net.decoder.layer.weight
    assert ensemble.net.encoder.r is not ensemble.net.decoder.r
    member: Any = ensemble.member(0)
    assert not torch.equal(member.encoder.weight, member.decoder.weight)


def test_a_layer_that_occurs_twice_is_one_layer() -> None:
    layer = nn.Linear(3, 3)
    ensemble = batch_ensemble(nn.Sequential(layer, nn.Tanh(), layer), M)
    assert list(ensemble.layers) == ["0"]
    assert_members_are_alone(ensemble, torch.randn(2, 3))


@pytest.mark.parametrize("kind", ["resnet18", "resnet50", "deeplabv3"])
def test_parameters_are_within_five_percent(kind: str) -> None:
    net, _ = CASES[kind]()
    count = sum(parameter.numel() for parameter in net.parameters())
    layers: list[Any] = [m for m in net.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    vectors = sum(
        m.in_features + m.out_features if isinstance(m, nn.Linear) else m.in_channels + m.out_channels for m in layers
    )
    biases = sum(len(m.bias) for m in layers if m.bias is not None)
    ensemble = batch_ensemble(net, 4)
    more = sum(parameter.numel() for parameter in ensemble.parameters()) - count
    assert more == 4 * vectors + 3 * biases
    assert more < 0.05 * count


def test_codes_cost_what_is_stated() -> None:
    d, net = 7, nn.Linear(5, 2)
    plain = sum(p.numel() for p in batch_ensemble(net, M).parameters())
    coded = sum(p.numel() for p in latent_rank_one(net, M, latent=d).parameters())
    assert coded - plain == 5 * d + d + 2 * (d * d + d) + d * 5 + 5


def test_some_layers_by_name() -> None:
    net, x = TORCHVISION["resnet18"]()
    ensemble = batch_ensemble(net, M, layers=("layer4", "fc"), shared=("layer4.0",), per_member_norm=True)
    assert list(ensemble.layers) == ["layer4.1.conv1", "layer4.1.conv2", "fc"]
    norms = [name for name, part in ensemble.net.named_modules() if isinstance(part, MemberNorm)]
    assert norms == ["layer4.1.bn1", "layer4.1.bn2"]
    assert_members_are_alone(ensemble, x)


class Raw(nn.Module):
    """A matrix that no layer holds."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.eye(3))
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x @ self.matrix)


REFUSED: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], str]] = {
    "recurrent": (lambda: NETS["lstm"]()[0], {}, r"'lstm' \(LSTM\) cannot have members.*shared=\('lstm',\)"),
    "embedding": (lambda: NETS["embedding"]()[0], {}, r"'embedding' \(Embedding\) cannot have members"),
    "attention": (lambda: NETS["attention"]()[0], {}, r"'attention' \(MultiheadAttention\) cannot have members"),
    "encoder": (lambda: NETS["encoder"]()[0], {}, r"'layer' \(TransformerEncoderLayer\) cannot have members"),
    "inside attention": (
        lambda: NETS["attention"]()[0],
        {"layers": ("attention",)},
        r"'attention' \(MultiheadAttention\) cannot",
    ),
    "bilinear": (lambda: nn.Bilinear(2, 3, 2), {}, r"'' \(Bilinear\) cannot have members"),
    "raw parameter": (Raw, {}, r"'matrix' \(Raw\) cannot have members.*shared=\('matrix',\)"),
    "nothing": (nn.Tanh, {}, "Tanh has no Linear or convolution to convert"),
    "nothing there": (normed, {"layers": ("2",)}, "no Linear or convolution to convert in 2"),
    "no such layer": (normed, {"layers": ("head",)}, "Sequential has no module 'head'; its outermost are 0, 1, 2"),
    "no such shared": (normed, {"shared": ("head",)}, "Sequential has no module 'head'"),
    "a string": (normed, {"layers": "5"}, r"collections of names, \('fc',\), not a string"),
    "members": (normed, {"members": 0}, "members is a number from 1, not 0"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(2)), {}, "'0' has no weights yet; call the network once"),
    "parametrised": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))),
        {},
        "the weight of '0' is made from other parameters; make it a plain one first",
    ),
    "hooked": (
        lambda: nn.Sequential(nn.utils.spectral_norm(nn.Linear(2, 2))),
        {},
        "the weight of '0' is made from other parameters",
    ),
    "synchronised": (
        lambda: nn.Sequential(nn.Linear(2, 2), nn.SyncBatchNorm(2)),
        {"per_member_norm": True},
        r"'1' \(SyncBatchNorm\) is no plain BatchNorm.*shared=\('1',\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("convert", [batch_ensemble, latent_rank_one])
def test_what_cannot_be_converted_is_named(case: str, convert: Any, untouched: Any) -> None:
    build, options, message = REFUSED[case]
    net = build()
    options = {"per_member_norm": False, **options}
    if case not in ("lazy", "hooked"):  # which torch cannot compare or copy
        with untouched(net), pytest.raises(ValueError, match=f"{convert.__name__}: .*{message}"):
            convert(net, **options)
    else:
        with pytest.raises(ValueError, match=message):
            convert(net, **options)


def test_a_raw_parameter_can_be_shared() -> None:
    assert_members_are_alone(batch_ensemble(Raw(), M, shared=("matrix",)), torch.randn(4, 3))


def test_a_network_of_several_outputs_is_told_of_the_adapter() -> None:
    net, x = segmentation()
    ensemble = batch_ensemble(net.net, 2)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"returns OrderedDict, not one tensor; convert Output\(net, 'out'\)"):
        ensemble(x)


class SequenceFirst(nn.Module):
    """A layer that sees [sequence, batch, feature]."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x.transpose(0, 1)).tanh().transpose(0, 1)[:, -1])


def test_a_batch_that_is_not_first_is_found() -> None:
    x = torch.randn(5, 2 * M, 3)
    for convert in (batch_ensemble, latent_rank_one):
        convert(normed(), M).check(torch.randn(5, 1, 6, 6))
        convert(SequenceFirst(), M, shared=("layer",)).check(x)
        wrong = convert(SequenceFirst(), M)
        with pytest.raises(ValueError, match=r"the outputs of member 0 differ by .* is the batch the first axis"):
            wrong.check(x)
        with pytest.raises(ValueError, match=r"'1' \(\w+\) is in training mode"):
            convert(normed().train(), M).check(torch.randn(5, 1, 6, 6))


def equals() -> RankOneNet:
    """Members that begin as equals."""
    return batch_ensemble(SequenceFirst(), M, initial=near_one(0.0))


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("convert", [batch_ensemble, latent_rank_one, lambda net, members: equals()])
def test_a_batch_that_is_not_first_is_found_at_the_first_call(convert: Any, mode: bool) -> None:
    x, y = torch.randn(5, 2 * M, 3), torch.zeros(5, dtype=torch.long)
    wrong = convert(SequenceFirst(), M).train(mode)
    model = RankOneEnsemble(wrong, likelihoods.categorical, size=5)
    for _ in range(2):
        with pytest.raises(ValueError, match="is the batch the first axis"):
            wrong(x)
        with pytest.raises(ValueError, match="is the batch the first axis"):
            RankOneELBO()(model, RankOneGuide(model))(x, y)
    assert all(module.training == mode for module in wrong.modules())


@pytest.mark.parametrize("convert", [batch_ensemble, latent_rank_one])
def test_the_first_call_checks_each_shape_once_and_changes_nothing(
    convert: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensemble = convert(normed().train(), M)
    reference = copy.deepcopy(ensemble)
    shapes: list[Any] = []
    check = RankOneNet.check
    monkeypatch.setattr(RankOneNet, "check", lambda self, x: shapes.append(tuple(x.shape)) or check(self, x))
    with monkeypatch.context() as unchecked:
        unchecked.setattr(RankOneNet, "check_once", lambda self, x: None)
        torch.manual_seed(1)
        expected = reference(x := torch.randn(5, 1, 6, 6))
    torch.manual_seed(1)
    torch.testing.assert_close(ensemble(torch.randn(5, 1, 6, 6)), expected, rtol=0, atol=0)
    assert all(torch.equal(a, b) for a, b in zip(ensemble.buffers(), reference.buffers(), strict=True))
    ensemble(x[:3])
    assert shapes == [(5, 1, 6, 6)]


class Random(nn.Module):
    """Noise in evaluation mode, too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * torch.rand(2)


def test_of_a_random_network_nothing_is_said() -> None:
    assert batch_ensemble(Random(), M)(torch.randn(5, 3)).shape == (M, 5, 2)


def test_inputs_that_are_not_finite_are_checked_later() -> None:
    wrong = batch_ensemble(SequenceFirst(), M)
    assert wrong(torch.full((5, 2 * M, 3), torch.nan)).shape == (M, 5, 2)
    with pytest.raises(ValueError, match="is the batch the first axis"):
        wrong(torch.randn(5, 2 * M, 3))


def test_modes_follow_the_network() -> None:
    net = normed()
    net[3].train()
    ensemble: Any = latent_rank_one(net, 2)
    flags = [ensemble.net[i].training for i in range(6)]
    assert flags == [False, False, False, True, False, False]


def test_latent_length_is_checked() -> None:
    with pytest.raises(ValueError, match="a code has at least one entry, not 0"):
        latent_rank_one(nn.Linear(2, 2), latent=0)
