"""Features of a data set, computed once."""

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bayesnn.functional import Inputs, progress_bar


@torch.no_grad()
def cache_features(
    features: Callable[..., Tensor], loader: Iterable[Any], *, copies: int = 1, progress: bool = True
) -> TensorDataset:
    """The features of a loader's examples under a frozen network, {(phi(x_i), y_i)}.

    With these, heads train in seconds.

    With augmentation every pass over the loader sees other x: `copies=k` keeps k passes, n k
    examples in all. The `size` of the model stays n.

    Args:
        features: x -> phi [batch, feature], such as `truncate(net, "fc")`.
        loader: batches (x, y).
        copies: passes over the loader.
        progress: show a bar on stderr.

    Returns:
        A data set of (phi, y) on the device of the features' results.

    Raises:
        ValueError: an empty loader; a random augmentation with `copies=1`, of which the cache
            would keep one draw; features that follow the statistics of their batch.

    Warns:
        UserWarning: of the labels 0, ..., max(y) some do not occur.

    >>> data = [(torch.ones(2, 3), torch.tensor([0, 1]))]
    >>> phi, y = cache_features(nn.Linear(3, 4).requires_grad_(False), data, copies=2).tensors
    >>> phi.shape, y
    (torch.Size([4, 4]), tensor([0, 1, 0, 1]))
    """
    if copies < 1:
        raise ValueError(f"cache_features: at least one pass is needed, not {copies}")
    if getattr(features, "batch_statistics", False) and getattr(features, "training", False):
        raise ValueError(
            "cache_features: these features follow the statistics of their batch and cannot be computed once; call "
            "features.eval(), or train on the inputs themselves"
        )
    if copies == 1 and _augmented(loader):
        raise ValueError(
            "cache_features: the loader's data set gives another x each time (a random augmentation), of which one "
            "pass would keep a single draw; use copies=10 or so, or train the guide on the inputs themselves"
        )
    pairs = []
    for copy in range(copies):
        for x, y in progress_bar(loader, desc=f"features {copy + 1}/{copies}", unit="batch", show=progress):
            pairs.append((_of_batch(features, x), y))
    if not pairs:
        raise ValueError("cache_features: the loader is empty")
    phi = torch.cat([one for one, _ in pairs])
    labels = torch.cat([y for _, y in pairs]).to(phi.device)
    if not labels.is_floating_point():
        absent = sorted(set(range(int(labels.max()) + 1)) - set(labels.unique().tolist()))
        if absent and labels.dim() == 1:
            warnings.warn(
                f"cache_features: no training example has the label {', '.join(map(str, absent))}; a head trained on "
                "these features never predicts it",
                stacklevel=2,
            )
    return TensorDataset(phi, labels)


def _of_batch(features: Callable[..., Tensor], x: Inputs) -> Tensor:
    device = next(features.parameters(), torch.empty(0)).device if isinstance(features, nn.Module) else None
    if isinstance(x, Tensor):
        return features(x if device is None else x.to(device))
    return features(**x) if isinstance(x, dict) else features(*x)


def _augmented(loader: Iterable[Any]) -> bool:
    """Whether the first example of the loader's data set changes from one look to the next."""
    dataset: Any = loader.dataset if isinstance(loader, DataLoader) else None
    if dataset is None or not hasattr(dataset, "__getitem__") or not len(dataset):
        return False
    with torch.random.fork_rng(devices=[]):  # looking must not change what training draws
        looks = [dataset[0][0] for _ in range(3)]
    return any(isinstance(x, Tensor) and not torch.equal(x, looks[0]) for x in looks[1:])
