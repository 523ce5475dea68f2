"""Guides of a last layer in the loops and exports that train their bodies with them."""

from functools import partial
from typing import Any

import pytest
import torch
from guide_cases import GUIDES
from torch.utils.data import DataLoader, TensorDataset

from bayesnn import to_arviz
from bayesnn.fit import fit
from bayesnn.guides import LastLayerELBO

CASES = [kind for kind in GUIDES if kind.startswith("LastLayer")]


@pytest.mark.parametrize("kind", CASES)
def test_arviz_has_its_site(kind: str) -> None:
    guide, model, x, y, _ = GUIDES[kind].make("")
    assert to_arviz(guide, x, y, model=model, draws=3)["posterior"][model.site].shape[:2] == (1, 3)


@pytest.mark.parametrize("kind", [kind for kind in CASES if GUIDES[kind].trained])
def test_fit_trains_it_in_batches(kind: str) -> None:
    guide, model, x, y, _ = GUIDES[kind].make("")
    loader: Any = DataLoader(TensorDataset(x.repeat(2, 1), torch.cat([y, y])), batch_size=4)
    loss = LastLayerELBO()(model, guide)
    history = fit(loss, loader, epochs=20, optimizer=partial(torch.optim.Adam, lr=0.02), progress=False)
    assert history.loss[-1] < history.loss[0]
