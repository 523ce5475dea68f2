"""A target sample: some patients of the German trial to learn from, the others to be judged on."""

import torch

from bayesnn.transfer import TransferData

from examples.studies.transfer_breast_cancer.cohorts import gbsg
from examples.studies.transfer_breast_cancer.response import Response, labelled
from examples.studies.transfer_breast_cancer.source import trained


def breast_cancer(
    seed: int,
    *,
    n_train: int,
    response: Response,
    linear: bool = False,
    node_negative: bool = False,
    source_seed: int = 0,
) -> TransferData:
    """`n_train` patients of the trial at random, and all others that the response can use as test
    data.

    The source is the same for all seeds; a seed draws the early events that stay, and the split.

    Args:
        seed: whole number.
        n_train: how many patients to learn from.
        response: what is predicted.
        linear: of the source, see `trained`.
        node_negative: of the source.
        source_seed: of the source.

    Raises:
        ValueError: fewer than 50 patients would be left to judge on.
    """
    source = trained(response, linear=linear, node_negative=node_negative, seed=source_seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        features, y = labelled(gbsg(), response)
        order = torch.randperm(len(y))
    if n_train > len(y) - 50:
        raise ValueError(
            f"breast_cancer: {n_train} of {len(y)} patients leave {len(y) - n_train} to judge on; take {len(y) - 50} "
            "at most"
        )
    x, learned, judged = source.standardised(features), order[:n_train], order[n_train:]
    return TransferData(
        source.net, x[learned], y[learned], x[judged], y[judged], response.binary, None, source.x, source.y
    )
