"""When a layer with members makes their weights: the measurement behind `RankOne.large`.

Forward and backward passes of single layers with four members, as ratios to the plain layer on the
same rows; float32, CPU time, medians of interleaved rounds. By rows, inputs and outputs are
multiplied by the members' vectors; by weights, each member's rows meet its own weight.
"""

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bayesnn.models.rank_one import RankOne, by_member, near_one

from examples.benchmarks.timing import Action, interleaved, markdown, options, ratio, write

SMOKE = bool(os.environ.get("SMOKE"))
MEMBERS = 4
LAYERS: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {  # and the inputs of one member
    "convolution 16 to 64, 32 x 32": (lambda: nn.Conv2d(16, 64, 3, padding=1), (32, 16, 32, 32)),
    "convolution 64, 32 x 32": (lambda: nn.Conv2d(64, 64, 3, padding=1), (32, 64, 32, 32)),
    "convolution 64, 7 x 7": (lambda: nn.Conv2d(64, 64, 3, padding=1), (32, 64, 7, 7)),
    "convolution 128, 16 x 16": (lambda: nn.Conv2d(128, 128, 3, padding=1), (32, 128, 16, 16)),
    "the same, batch 8": (lambda: nn.Conv2d(128, 128, 3, padding=1), (8, 128, 16, 16)),
    "convolution 256, 8 x 8": (lambda: nn.Conv2d(256, 256, 3, padding=1), (32, 256, 8, 8)),
    "convolution 512, 4 x 4": (lambda: nn.Conv2d(512, 512, 3, padding=1), (32, 512, 4, 4)),
    "convolution 512, 1 x 1": (lambda: nn.Conv2d(512, 512, 3, padding=1), (32, 512, 1, 1)),
    "depthwise 128, 16 x 16": (lambda: nn.Conv2d(128, 128, 3, padding=1, groups=128), (32, 128, 16, 16)),
    "dense 784 to 200": (lambda: nn.Linear(784, 200), (32, 784)),
    "dense 192 to 768, 197 tokens": (lambda: nn.Linear(192, 768), (32, 197, 192)),
    "dense 768, 197 tokens, batch 8": (lambda: nn.Linear(768, 768), (8, 197, 768)),
}


def passing(layer: nn.Module, x: Tensor, outputs: Callable[[Tensor], Tensor]) -> Action:
    """One pass forward and one back, to inputs and parameters."""

    def both() -> None:
        layer.zero_grad()
        y = outputs(x)
        y.backward(torch.ones_like(y))
        x.grad = None

    return both


def main() -> None:
    """Measure and write the table."""
    given = options(__doc__, "latents_layers.md")
    rows: list[tuple[str, ...]] = []
    for name, (build, shape) in LAYERS.items():
        torch.manual_seed(0)
        plain, members = build(), RankOne(build(), MEMBERS, near_one())
        x = torch.randn(MEMBERS * (1 if SMOKE else shape[0]), *shape[1:]).requires_grad_()
        actions = {
            "plain": passing(plain, x, plain),
            "by rows": passing(members, x, lambda x, layer=members: layer.by_rows(by_member(x, MEMBERS))),  # type: ignore[misc]
            "by weights": passing(members, x, lambda x, layer=members: layer.by_weights(by_member(x, MEMBERS))),  # type: ignore[misc]
        }
        times = interleaved(actions, given.repeats, name)
        entries = (x.numel() + plain(x).numel()) // MEMBERS
        chosen = "weights" if members.large(by_member(x, MEMBERS)) else "rows"
        ratios = [f"{ratio(times, way, 'plain'):.2f}" for way in ("by rows", "by weights")]
        rows.append((name, f"{entries:,}", f"{plain.weight.numel():,}", *ratios, chosen))
    header = ("layer", "entries of a member's rows", "weights", "by rows", "by weights", "the rule takes")
    write(given.out, markdown(header, rows))


if __name__ == "__main__":
    main()
