"""What Laplace costs: fits in epochs of training, predictions in plain forward passes, beside
laplace-torch 0.3.

float32, one thread, CPU time, medians of interleaved rounds: a plain epoch or forward pass, ours,
laplace-torch, and so on in turn. An epoch is one of Adam over the same examples in the same
batches. Bounds are those that the project set itself. `make bench-peers` makes laplace-torch's
environment and runs this with `--peer`; without it, its columns say "not installed".
"""

import argparse
import os
from pathlib import Path

import torch

from examples.benchmarks.laplace_agreement import HEADER, compare, small
from examples.benchmarks.laplace_cases import Bench, Case
from examples.benchmarks.laplace_memory import LARGE, in_own_process
from examples.benchmarks.laplace_peer import ABSENT, Peer, PeerError
from examples.benchmarks.laplace_ratios import Row, fit, predictions, steps
from examples.benchmarks.timing import markdown, write

LAST = ("last layer, full", "last_layer", "full")
SUB = ("500 random weights, full", "subnetwork", "full")
DIAGONAL = ("all, diagonal", "all", "diag")
KRONECKER = ("all, Kronecker", "all", "kron")
SAMPLED = ("all, Kronecker, Monte-Carlo Fisher", "all", "kron", True)

FITS = [
    Case("LeNet", *LAST, bound=0.8),
    Case("MLP", *LAST, bound=6.5),
    Case("LeNet", *SUB, examples=64, bound=6, peer_batch=16),
    Case("MLP", *SUB, examples=64, bound=4, peer_batch=16),
    Case("LeNet", *DIAGONAL, examples=64, bound=8, peer_batch=16),
    Case("MLP", *DIAGONAL, examples=64, bound=15, peer_batch=16),
    Case("LeNet", *KRONECKER, bound=6),
    Case("MLP", *KRONECKER, bound=8),
    Case("LeNet", *SAMPLED, bound=3.5),
    Case("MLP", *SAMPLED, bound=5),
    Case("ResNet-18", *LAST, examples=128),
    Case("ResNet-18", *SUB, examples=64, peer_examples=4, peer_batch=4, decomposed=False),
    Case("ResNet-18", "all, diagonal, Monte-Carlo Fisher", "all", "diag", stochastic=True, examples=64,
         peer_examples=4, peer_batch=4, decomposed=False),
    Case("ResNet-18", *SAMPLED, examples=64, decomposed=False),
]  # fmt: skip

PREDICTIONS = [  # bound; inputs and chunk of laplace-torch
    (Case("LeNet", *LAST), 1.5, 1_000, 50),
    (Case("LeNet", *SUB, examples=64, peer_batch=16), 11, 50, 10),
    (Case("MLP", *SUB, examples=64, peer_batch=16), 14, 50, 10),
    (Case("LeNet", *KRONECKER), 40, 50, 10),
    (Case("MLP", *KRONECKER), 40, 10, 10),
]


def memory(peer: Peer, *, large: bool) -> list[Row]:
    """Peak memory over the process's size before the fit."""
    found = in_own_process("diagonal")
    if found is None:
        return []
    theirs = ABSENT
    if peer.python is not None:
        try:
            theirs = _gigabytes(peer.ask_anew(**Case("LeNet", *DIAGONAL, examples=64).request("memory"))["bytes"])
        except PeerError as error:
            theirs = str(error)
    rows: list[Row] = [("LeNet: fit, all, diagonal", _gigabytes(found["bytes"]), theirs, "0.2 GB")]
    if large:
        found = in_own_process("subnetwork")
        needs = ABSENT if peer.python is None else "not run: its Jacobian is 0.45 GB an example"
        what = f"ResNet-18: {LARGE:,} random weights, full, 128 examples"
        rows.append((f"{what}: fit ({found['fit']:.0f} CPU s)", _gigabytes(found["bytes of the fit"]), needs, "3.2 GB"))
        more = f"posterior and 50 predictions ({found['posterior']:.0f} and {found['predictions']:.0f} CPU s more)"
        rows.append((f"{what}: with {more}", _gigabytes(found["bytes"]), needs, "3.2 GB"))
    return rows


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB"


def main() -> None:
    """Run all and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/tables/laplace.md"), help="where the tables go")
    parser.add_argument("--repeats", type=int, default=15, help="interleaved rounds")
    parser.add_argument("--peer", type=Path, help="the Python of an environment that has laplace-torch 0.3")
    parser.add_argument("--quick", action="store_true", help="few examples, one round, without the MLP and ResNet-18")
    options = parser.parse_args()
    quick = options.quick or bool(os.environ.get("SMOKE"))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    repeats = 1 if quick else options.repeats
    bench = Bench(128 if quick else 512, 50 if quick else 1_000, large=not quick)
    agreement = small()
    cases = [case for case in FITS if not quick or case.net == "LeNet"]
    predicted = [row for row in PREDICTIONS if not quick or row[0].net == "LeNet"]
    with Peer(options.peer, bench.job()) as peer, Peer(options.peer, agreement.job()) as other:
        fits = [fit(case, bench, peer, repeats) for case in cases]
        forward = [predictions(c, bench, peer, repeats, bound=b, inputs=i, chunk=k) for c, b, i, k in predicted]
        evidence = steps(Case("LeNet", *LAST), bench, peer, repeats)
        peaks = memory(peer, large=not quick)
        numbers = compare(agreement, other)
    theirs = "laplace-torch 0.3"
    fit_header = ("fit, in epochs", "ours", "with posterior", "with evidence", theirs, "with posterior",
                  "with evidence", "bound")  # fmt: skip
    tables = [
        markdown(fit_header, fits),
        markdown(("GLM probit, in forward passes", "ours: variances", "ours: covariances", theirs, "bound"), forward),
        markdown(("100 steps of marginal likelihood, CPU time", "ours", theirs, "bound"), evidence),
        markdown(("peak memory over the process's size before", "ours", theirs, "bound"), peaks),
        markdown(HEADER, numbers),
    ]
    write(options.out, "\n".join(tables))


if __name__ == "__main__":
    main()
