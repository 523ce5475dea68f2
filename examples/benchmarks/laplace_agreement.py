"""Whether laplace-torch's numbers are ours, on networks so small that the exact
matrix is at hand.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bayesnn import BNN, likelihoods, priors
from bayesnn.guides import laplace
from bayesnn.predict import probit

from examples.benchmarks.laplace_cases import STRUCTURES, SUBSETS, Case
from examples.benchmarks.laplace_peer import ABSENT, Peer
from examples.benchmarks.timing import markdown

Row = tuple[str, ...]
EXAMPLES, BATCH = 24, 8
HEADER = ("the same number? (float64, 24 examples)", "ours", "laplace-torch 0.3", "relative difference")


def networks() -> dict[str, nn.Module]:
    """A network of linear layers and one with a convolution."""
    return {
        "linear": nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)),
        "convolution": nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 3)),
    }


@dataclass
class Small:
    """The small networks, in double precision, and their data."""

    nets: dict[str, nn.Module]
    data: dict[str, tuple[Tensor, Tensor]]

    def job(self) -> dict[str, Any]:
        """For laplace-torch's process."""
        return {"nets": self.nets, "data": self.data, "inputs": {}, "indices": {}}

    def guide(self, case: Case) -> laplace.Laplace:
        """Ours, fitted."""
        net, (x, y) = self.nets[case.net], self.data[case.net]
        model = BNN(net, SUBSETS[case.subset](net), priors.normal(1.0), likelihoods.categorical)
        batches = list(zip(x.split(BATCH), y.split(BATCH), strict=True))
        return laplace.Laplace(model, structure=STRUCTURES[case.structure]).fit(batches)


def small() -> Small:
    """Make them."""
    nets = {name: net.double().eval() for name, net in networks().items()}
    shapes = {"linear": (6,), "convolution": (2, 6, 6)}
    data = {
        name: (torch.randn(EXAMPLES, *shape).double(), torch.randint(0, 3, (EXAMPLES,)))
        for name, shape in shapes.items()
    }
    return Small(nets, data)


def compare(bench: Small, peer: Peer) -> list[Row]:
    """Rows (what, our number, theirs, largest relative difference)."""
    rows: list[Row] = []
    for name in bench.nets:
        for subset, structure in (("last_layer", "full"), ("all", "kron")):
            case = Case(name, "", subset, structure, examples=EXAMPLES, peer_batch=BATCH)
            theirs = None if peer.python is None else peer.ask(**case.request("values"))
            rows += _compare(bench, case, theirs)
    return rows


def _compare(bench: Small, case: Case, theirs: dict[str, Any] | None) -> list[Row]:
    guide = bench.guide(case)
    x, _ = bench.data[case.net]
    label = f"{case.net}, {'last layer, full' if case.structure == 'full' else 'all, Kronecker'}"
    found = probit(guide.model.likelihood, guide.output_distribution(x)).probs
    rows = [
        _row(f"{label}: log evidence, nats", guide.log_evidence(), theirs, "evidence"),
        _row(f"{label}: probit probabilities", found, theirs, "probabilities"),
    ]
    structure = guide.fitted.curvature
    if isinstance(structure, laplace.Full):
        return [_row(f"{label}: H", structure.matrix, theirs, "H"), *rows]
    assert isinstance(structure, laplace.Kronecker)
    ours = torch.stack([basis.values.sum() for basis in structure.bases().values()])
    full = bench.guide(Case(case.net, "", "all", "full")).fitted.curvature
    assert isinstance(full, laplace.Full)
    sizes = [basis.values.numel() for basis in structure.bases().values()]
    exact = torch.stack([part.sum() for part in full.matrix.diagonal().split(sizes)])
    for number, block in enumerate(structure.bases()):
        other = None if theirs is None else torch.tensor(theirs["traces"][number])
        shown = ABSENT if other is None else f"{other / exact[number]:.3f}"
        rows.append((f"{label}: trace of {block} over the exact one", f"{ours[number] / exact[number]:.3f}", shown, ""))
    return rows


def _row(label: str, ours: Tensor, theirs: dict[str, Any] | None, key: str) -> Row:
    size = f"{ours.abs().max():.4g}"
    if theirs is None:
        return (label, size, ABSENT, "")
    other = torch.tensor(theirs[key], dtype=torch.double).reshape(ours.shape)
    return (label, size, f"{other.abs().max():.4g}", f"{(ours - other).abs().max() / ours.abs().max():.1e}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", type=Path, help="the Python of an environment that has laplace-torch 0.3")
    options = parser.parse_args()
    torch.manual_seed(0)
    bench = small()
    with Peer(options.peer, bench.job()) as peer:
        print(markdown(HEADER, compare(bench, peer)))


if __name__ == "__main__":
    main()
