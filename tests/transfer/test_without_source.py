"""Leave-one-out without a source: against integrals by brute force, and counts by hand."""

import pytest
import torch

from bayesnn.transfer import without_source


def test_numbers_against_quadrature() -> None:
    """p(y_i | others) = integral of N(y_i | m, s^2) prod N(y_j | m, s^2) / s
    over that without y_i, on a grid.
    """
    y = torch.tensor([0.3, -1.2, 0.8, 2.0, 0.1], dtype=torch.double)
    m, log_s = torch.meshgrid(
        torch.linspace(-60, 60, 2001).double(), torch.linspace(-4, 6, 401).double(), indexing="ij"
    )
    # flat in log s
    each = torch.distributions.Normal(m.unsqueeze(-1), log_s.exp().unsqueeze(-1)).log_prob(y)
    everything = each.sum(-1)
    expected = torch.stack(
        [everything.logsumexp((0, 1)) - (everything - each[..., i]).logsumexp((0, 1)) for i in range(5)]
    )
    torch.testing.assert_close(without_source(y), expected, rtol=2e-3, atol=0)


def test_labels_by_hand() -> None:
    y = torch.tensor([0, 2, 0, 0, 1])
    expected = torch.tensor([2 + 1 / 3, 1 / 3, 2 + 1 / 3, 2 + 1 / 3, 1 / 3]).double() / 5
    torch.testing.assert_close(without_source(y, classes=3).exp(), expected)
    torch.testing.assert_close(without_source((y == 0).double(), classes=2).exp()[0].item(), 2.5 / 5)


def test_too_few() -> None:
    with pytest.raises(ValueError, match="at least three targets"):
        without_source(torch.zeros(2))
