"""What the studies of latents count, on cases whose answers are known."""

import pytest
import torch
from torch import nn

from bayesnn.models import batch_ensemble
from bayesnn.models.rank_one import near_one

from examples.studies.calibrate_a_classifier.report import to_markdown
from examples.studies.common.study import cell
from examples.studies.lp_bnn_digits.judged import Judged, _over_layers, numbers
from examples.studies.lp_bnn_digits.members import apart
from examples.studies.lp_bnn_digits.trained import Trained


def test_equal_members_are_not_apart_and_others_are() -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(4, 50), nn.ReLU(), nn.Linear(50, 5)), torch.randn(200, 4)
    same = apart(batch_ensemble(net, 3, initial=near_one(0.0)), x)
    assert same == {"disagreement": 0.0, "between": [0.0, 0.0], "within": [0.0, 0.0], "kl": [0.0, 0.0]}
    signs = iter([1.0, 1.0, 1.0, 1.0])

    def opposite(members: int, width: int) -> torch.Tensor:
        vectors = torch.ones(members, width)
        vectors[1] = -next(signs)
        return vectors

    other = apart(batch_ensemble(nn.Linear(4, 2, bias=False), 2, initial=opposite), x)
    # r = s = (1, -1) for the two members: the signs of r and s cancel, so that they predict the
    # same.
    assert other["disagreement"] == 0.0
    assert other["between"] == [pytest.approx(2**0.5)]


def test_members_that_always_differ_disagree_always() -> None:
    net = batch_ensemble(nn.Linear(4, 2, bias=False), 2, initial=near_one(0.0))
    with torch.no_grad():
        net.layers[""].s[1] = -1.0
    assert apart(net, torch.randn(50, 4))["disagreement"] == 1.0


def test_numbers_of_a_predictor_that_is_certain() -> None:
    x, y = torch.zeros(20, 1), torch.arange(20) % 2

    def always_zero(images: torch.Tensor) -> torch.Tensor:
        return torch.tensor([1.0, 0.0]).expand(3, len(images), 2)

    shifts = {kind: [x, x] for kind in ("noise", "rotation")}
    row = numbers(Trained(always_zero, 7, 2.0), Judged(x, y, x, shifts))
    assert (row["accuracy"], row["confidence"], row["parameters"]) == (0.5, pytest.approx(1.0), 7)
    assert row["ece"] == pytest.approx(0.5)
    # probabilities end at 1e-12
    assert row["nll"] == pytest.approx(0.5 * 12 * torch.log(torch.tensor(10.0)).item())
    assert row["auroc"] == 0.5
    assert row["noise_ece"] == [pytest.approx(0.5)] * 2
    assert row["history"] == []


def test_history_is_the_root_mean_square_over_layers() -> None:
    epoch = {"disagreement": 0.1, "between": [3.0, 4.0], "within": [0.0, 0.0], "kl": [1.0, 2.0]}
    assert _over_layers(epoch) == {"disagreement": 0.1, "between": pytest.approx(12.5**0.5), "within": 0.0, "kl": 3.0}


def test_means_over_seeds_carry_their_standard_error() -> None:
    assert cell([1.0, 3.0], 2) == "2.00 ± 1.00"
    assert cell([1.0, 3.0], 1, sign=True) == "+2.0 ± 1.0"


def test_a_method_without_a_cost_has_an_empty_cell_over_several_seeds() -> None:
    columns = ("accuracy", "nll", "ece", "ece_low", "ece_high", "ece_noise_floor", "confidence")
    row = dict.fromkeys((*columns, "auroc_letters", "auroc_rotated_digits"), 0.5)
    runs = [
        {
            "MAP": {**row, "seconds": 2.0},
            "TST": {**row, "seconds": 3.0 + i},
            "ensemble": {**row, "seconds": float("nan")},
        }
        for i in range(3)
    ]
    table = [line.split(" | ") for line in to_markdown(runs).splitlines() if line.startswith("| ")]
    assert {line[0]: line[-1] for line in table[2:]} == {"| MAP": "1.00 |", "| TST": "2.00 |", "| ensemble": " |"}
