"""Peak memory of one fit over this process's size before it: `laplace.py` runs
it in a process of its own. Linux.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from bayesnn import BNN, likelihoods, priors, subset
from bayesnn.guides.laplace import Laplace

from examples.benchmarks.laplace_cases import Bench, Case

LARGE = 10_000
STATUS = Path("/proc/self/status")


def diagonal() -> dict[str, float]:
    """LeNet, all weights, diagonal, 64 examples in one batch."""
    case = Case("LeNet", "", "all", "diag", examples=64)
    bench = Bench(case.examples, 1, large=False)
    guide, batches = bench.guide(case), bench.batches(case)
    base = size_now()
    guide.fit(batches)
    return {"bytes": resident("VmHWM") - base}


def subnetwork() -> dict[str, float]:
    """ResNet-18 at 32 x 32, 10,000 random weights with full covariance, 128
    examples; then 50 predictions.
    """
    bench = Bench(128, 50, large=True)
    net, case = bench.nets["ResNet-18"], Case("ResNet-18", "", "subnetwork", "full", examples=128)
    chosen = subset.random(net, LARGE, generator=torch.Generator().manual_seed(0))
    guide = Laplace(BNN(net, chosen, priors.normal(1.0), likelihoods.categorical, size=128))
    times, peaks = [time.process_time()], [float(size_now())]
    for action in (
        lambda: guide.fit(bench.batches(case)),
        lambda: guide.posterior,
        lambda: guide.output_distribution(bench.inputs["ResNet-18"]),
    ):
        action()
        times.append(time.process_time())
        peaks.append(float(resident("VmHWM")))
    names = ("fit", "posterior", "predictions")
    found = {name: times[number + 1] - times[number] for number, name in enumerate(names)}
    return {"bytes": peaks[-1] - peaks[0], "bytes of the fit": peaks[1] - peaks[0], **found}


def size_now() -> int:
    """The size of this process, whose peak is counted from here on."""
    # not allowed everywhere: then the peak is that since the start
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def resident(what: str) -> int:
    """Bytes of this process in memory: at present (VmRSS) or at most so far (VmHWM)."""
    return next(int(line.split()[1]) * 1024 for line in STATUS.read_text().splitlines() if line.startswith(what))


def in_own_process(what: str) -> Any:
    """The numbers of one measurement; None where the system does not tell them."""
    if not STATUS.exists():
        return None
    command = [sys.executable, "-m", "examples.benchmarks.laplace_memory", what]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    return json.loads(done.stdout)


def main() -> None:
    """Print one measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", choices=("diagonal", "subnetwork"), default="diagonal", help="which")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    what = parser.parse_args().what
    print(json.dumps(diagonal() if what == "diagonal" else subnetwork()))


if __name__ == "__main__":
    main()
