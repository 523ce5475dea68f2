"""laplace-torch's side of `laplace.py`: a process that stays, and times what each line of its
standard input asks for.

It lives in an environment of its own, so that it imports torch and laplace alone, and is started
with Python's option -P, since a script beside it is called laplace too.
"""

import copy
import importlib
import json
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

STEPS = 100


class Batches:
    """What laplace-torch asks of a loader: batches, and the length of `dataset`."""

    def __init__(self, x: Tensor, y: Tensor, size: int) -> None:
        self.dataset = range(len(x))
        self.batches = list(zip(x.split(size), y.split(size), strict=True))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The same order each time."""
        return iter(self.batches)


class Worker:
    """Answers one request after another.

    Args:
        job: {"nets": {name: module}, "data": {name: (x, y)}, "indices": {name: flat indices}}.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.held: dict[str, Any] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request, by its "do"."""
        if request["do"] == "hello":
            importlib.import_module("laplace")
            return {}
        if request["do"] == "memory":
            base = resident("VmRSS")
            self.fitted(request)
            return {"bytes": resident("VmHWM") - base}
        if request["do"] == "values":
            return self.values(request)
        return {"seconds": self.seconds(request)}

    def seconds(self, request: dict[str, Any]) -> float:
        """CPU seconds of a fit, alone or with what follows it; of predictions; of 100 steps of
        marginal likelihood.
        """
        if request["do"] == "probit":
            return self.probit(request)
        make = self.maker(request)
        start = time.process_time()
        approximation = make()
        if request["do"] == "steps":
            start = time.process_time()
            approximation.optimize_prior_precision("glm", "marglik", n_steps=STEPS, prior_structure="scalar")
        if request["do"] == "posterior" and request["structure"] == "full":
            _ = approximation.posterior_scale  # Kronecker factors are decomposed by the fit itself
        if request["do"] == "evidence":
            approximation.log_marginal_likelihood()
        return time.process_time() - start

    def probit(self, request: dict[str, Any]) -> float:
        """GLM predictions of the first inputs, in chunks; the fit is not counted."""
        key = json.dumps({name: request[name] for name in ("net", "subset", "structure", "stochastic")})
        if key not in self.held:
            self.held = {key: self.fitted(request)}  # one at a time: they are large
        parts = self.job["inputs"][request["net"]][: request["inputs"]].split(request["chunk"])
        start = time.process_time()
        for part in parts:
            self.held[key](part, pred_type="glm", link_approx="probit")
        return time.process_time() - start

    def values(self, request: dict[str, Any]) -> dict[str, Any]:
        """Numbers to compare: H or the traces of Kronecker blocks, log evidence, probabilities."""
        found = self.fitted(request)
        x, _ = self.job["data"][request["net"]]
        answer: dict[str, Any] = {"evidence": float(found.log_marginal_likelihood())}
        answer["probabilities"] = found(x, pred_type="glm", link_approx="probit").tolist()
        if request["structure"] == "kron":
            answer["traces"] = [
                float(torch.stack([factor.trace() for factor in block]).prod()) for block in found.H_facs.kfacs
            ]
        else:
            answer["H"] = found.H.tolist()
        return answer

    def fitted(self, request: dict[str, Any]) -> Any:
        """A fitted approximation."""
        return self.maker(request)()

    def maker(self, request: dict[str, Any]) -> Any:
        """Makes and fits an approximation of a copy of the network, which is made beforehand."""
        laplace = importlib.import_module("laplace")
        name = request["net"]
        net = copy.deepcopy(self.job["nets"][name])
        x, y = self.job["data"][name]
        batches = Batches(x[: request["examples"]], y[: request["examples"]], request["batch"])
        options: dict[str, Any] = {"subset_of_weights": request["subset"], "hessian_structure": request["structure"]}
        if request["subset"] == "subnetwork":
            options["subnetwork_indices"] = self.job["indices"][name]
        if request["stochastic"]:
            options["backend_kwargs"] = {"stochastic": True}

        def make() -> Any:
            approximation = laplace.Laplace(net, "classification", **options)
            approximation.fit(batches)
            return approximation

        return make


def resident(what: str) -> int:
    """Bytes of this process in memory: at present (VmRSS) or at most so far (VmHWM). Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def main() -> None:
    """Read requests, one JSON object a line, until there are no more."""
    if len(sys.argv) < 2:
        print(__doc__)
        return
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    worker = Worker(torch.load(sys.argv[1], weights_only=False))
    for line in sys.stdin:
        try:
            answer = worker.answer(json.loads(line))
        except Exception as error:  # the other side shows it in the table
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
