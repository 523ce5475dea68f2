"""What BatchEnsemble and LP-BNN cost with four members, beside torch-uncertainty's layers where
they are installed.

float32, one thread, CPU time, medians of interleaved rounds. A step is one of Adam over a tiled
batch of 4 x 32 images of 32 x 32, and the plain step that of the network itself over the same 128
rows. Predictions are those of all four members for 500 images (WRN-16-4: 100) in chunks of 50; the
plain ones four passes of the network in the same chunks. Parameters are those of the single
network and what the members add. torch-uncertainty 0.13 is measured where this runs in an
environment that has it (`pip install torch-uncertainty`); its LP-BNN is fitted by its own loss.
"""

import copy
import os
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18

from bayesnn import likelihoods, predict
from bayesnn.guides import RankOneELBO, RankOneGuide
from bayesnn.models import RankOneEnsemble, batch_ensemble, latent_rank_one
from bayesnn.models.rank_one import RankOneNet, tile

from examples.benchmarks import latents_peer
from examples.benchmarks.timing import Action, interleaved, markdown, options, ratio, write
from examples.benchmarks.wide_resnet import WideResNet

SMOKE = bool(os.environ.get("SMOKE"))
MEMBERS = 4
BATCH = 2 if SMOKE else 32
NETS: dict[str, tuple[Callable[[], nn.Module], int]] = {  # and the inputs to predict
    "ResNet-18": (lambda: resnet18(num_classes=10), 500),
    "WRN-16-4": (lambda: WideResNet(10, 1) if SMOKE else WideResNet(16, 4), 100),
}
OURS: dict[str, Callable[[nn.Module], RankOneNet]] = {
    "BatchEnsemble": lambda net: batch_ensemble(net, MEMBERS),
    "BatchEnsemble, normalisation of each member": lambda net: batch_ensemble(net, MEMBERS, per_member_norm=True),
    "LP-BNN": lambda net: latent_rank_one(net, MEMBERS, per_member_norm=False),
    "LP-BNN, normalisation of each member": lambda net: latent_rank_one(net, MEMBERS),
}
THEIRS = {"BatchEnsemble": latents_peer.batch_ensemble, "LP-BNN": latents_peer.lp_bnn}
BOUND = "1.3"


def stepping(module: nn.Module, loss: Callable[[], Tensor]) -> Action:
    """One step of Adam."""
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=1e-6)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def steps(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, Action]:
    """A training step of the plain network over the tiled batch, and of every kind."""
    rows, labels = tile(x, MEMBERS), y.repeat(MEMBERS)
    assert isinstance(rows, Tensor)
    plain = copy.deepcopy(net).train()
    actions = {"plain": stepping(plain, lambda: F.cross_entropy(plain(rows), labels))}
    for kind, convert in OURS.items():
        model = RankOneEnsemble(convert(net).train(), likelihoods.categorical, size=50_000)
        ours = RankOneELBO()(model, RankOneGuide(model))
        actions[kind] = stepping(ours, lambda ours=ours: ours(x, y))  # type: ignore[misc]
    if latents_peer.installed():
        for kind, convert_theirs in THEIRS.items():
            theirs = convert_theirs(net, MEMBERS).train()
            step = stepping(theirs, lambda theirs=theirs: latents_peer.loss(theirs, rows, labels))  # type: ignore[misc]
            actions[f"torch-uncertainty: {kind}"] = step
    return actions


@torch.no_grad()
def plain_passes(net: nn.Module, x: Tensor) -> None:
    """What `MEMBERS` separate networks would cost."""
    for _ in range(MEMBERS):
        for part in x.split(50):
            net(part)


@torch.no_grad()
def tiled_passes(net: nn.Module, x: Tensor) -> None:
    """All members at once."""
    for part in x.split(50):
        net(tile(part, MEMBERS))


def predictions(net: nn.Module, x: Tensor) -> dict[str, Action]:
    """Outputs of all members: by plain passes, ours by `predict`, theirs by
    passes of tiled chunks.
    """
    plain = copy.deepcopy(net).eval()
    actions: dict[str, Action] = {"plain": lambda: plain_passes(plain, x)}
    for kind, convert in OURS.items():
        model = RankOneEnsemble(convert(net).eval(), likelihoods.categorical)
        draws = RankOneGuide(model).draws()
        actions[kind] = lambda model=model, draws=draws: predict(draws, x, model=model, chunk=50)  # type: ignore[misc]
    if latents_peer.installed():
        for kind, convert_theirs in THEIRS.items():
            theirs = convert_theirs(net, MEMBERS).eval()
            actions[f"torch-uncertainty: {kind}"] = lambda theirs=theirs: tiled_passes(theirs, x)  # type: ignore[misc]
    return actions


def main() -> None:
    """Every network, steps then predictions."""
    given = options(__doc__, "latents.md")
    torch.manual_seed(0)
    rows: list[tuple[str, ...]] = []
    for name, (build, inputs) in NETS.items():
        net = build()
        single = sum(parameter.numel() for parameter in net.parameters())
        added = {k: sum(p.numel() for p in convert(net).parameters()) - single for k, convert in OURS.items()}
        x, y = torch.randn(BATCH, 3, 32, 32), torch.randint(10, (BATCH,))
        work = {
            "step": steps(net, x, y),
            "predictions": predictions(net, torch.randn(4 if SMOKE else inputs, 3, 32, 32)),
        }
        for label, actions in work.items():
            times = interleaved(actions, given.repeats if label == "step" else max(1, given.repeats // 2), name)
            for kind in OURS:
                peer = f"torch-uncertainty: {kind}"
                theirs = f"{ratio(times, peer, 'plain'):.2f}" if peer in times else "" if kind not in THEIRS else "-"
                size = f"{single:,} + {added[kind]:,}"
                rows.append((f"{name}: {label}, {kind}", f"{ratio(times, kind, 'plain'):.2f}", BOUND, theirs, size))
    header = ("", "ratio to plain", "bound", "torch-uncertainty", "parameters")
    write(given.out, markdown(header, rows))


if __name__ == "__main__":
    main()
