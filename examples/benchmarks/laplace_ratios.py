"""Ratios of fits and predictions for `laplace.py`, of ours and of laplace-torch
in the same rounds.
"""

import statistics
from collections.abc import Mapping
from typing import Any

from tqdm.auto import tqdm

from bayesnn.predict import probit

from examples.benchmarks.laplace_cases import CHUNK, Bench, Case, Clock, timed
from examples.benchmarks.laplace_peer import ABSENT, Peer, PeerError

BUDGET = 2.0
"""CPU seconds that the repeats of one action may take; one call that takes
longer is its own measurement.
"""

STAGES = ("fit", "posterior", "evidence")

Row = tuple[str, ...]


def rounds(actions: Mapping[str, Clock], repeats: int, label: str) -> dict[str, float]:
    """{action: median seconds}, in turn A B C A B C ... after one call of each; slow ones take
    part in fewer rounds.
    """
    first = {name: clock() for name, clock in actions.items()}
    count = {name: min(repeats, int(BUDGET / max(seconds, 1e-9))) for name, seconds in first.items()}
    times: dict[str, list[float]] = {name: [] if count[name] else [first[name]] for name in actions}
    for number in tqdm(range(max(count.values())), desc=label):
        for name, clock in actions.items():
            if number < count[name]:
                times[name].append(clock())
    return {name: statistics.median(found) for name, found in times.items()}


def fit(case: Case, bench: Bench, peer: Peer, repeats: int) -> Row:
    """A fit alone, with the posterior, and with the evidence, in epochs."""
    batches, guide = bench.batches(case), bench.guide

    def posterior() -> None:
        _ = guide(case).fit(batches).posterior

    actions: dict[str, Clock] = {
        "plain": bench.epoch(case),
        "plain, peer": bench.epoch(case, case.peer_batch, case.peer_examples),
        "fit": timed(lambda: guide(case).fit(batches)),
    }
    if case.decomposed:
        actions["posterior"] = timed(posterior)
        actions["evidence"] = timed(lambda: guide(case).fit(batches).log_evidence())
    # Elsewhere nothing is left after laplace-torch's fit: it decomposes Kronecker factors itself.
    note = _add_peer(actions, case, peer, STAGES if case.subset == "last_layer" else STAGES[:1])
    seconds = rounds(actions, repeats, f"{case.net}: fit, {case.what}")
    ours = [_ratio(seconds, name, "plain") for name in STAGES]
    theirs = [_ratio(seconds, f"peer: {name}", "plain, peer") for name in STAGES]
    if note:
        theirs = [note, "", ""]
    # The Kronecker fit of laplace-torch has the eigendecomposition in it, and so has the bound.
    bounded = "posterior" if case.structure == "kron" and case.decomposed else "fit"
    return (f"{case.net}: {case.what}", *ours, *theirs, _bound(case.bound, seconds[bounded] / seconds["plain"]))


def predictions(
    case: Case, bench: Bench, peer: Peer, repeats: int, *, bound: float, inputs: int, chunk: int = CHUNK
) -> Row:
    """GLM probit, in forward passes; laplace-torch gets the first `inputs` in
    chunks of `chunk`.
    """
    guide = bench.guide(case).fit(bench.batches(case))
    parts = bench.inputs[case.net].split(CHUNK)

    def predict(*, diagonal: bool) -> None:
        for x in parts:
            probit(guide.model.likelihood, guide.output_distribution(x, diagonal=diagonal))

    actions: dict[str, Clock] = {
        "plain": bench.forward(case.net, len(bench.inputs[case.net])),
        "plain, peer": bench.forward(case.net, inputs, chunk),
        "diagonal": timed(lambda: predict(diagonal=True)),
        "covariance": timed(lambda: predict(diagonal=False)),
    }
    note = _add_peer(actions, case, peer, ("probit",), inputs=inputs, chunk=chunk)
    seconds = rounds(actions, repeats, f"{case.net}: predictions, {case.what}")
    theirs = note or _ratio(seconds, "peer: probit", "plain, peer")
    ours = [_ratio(seconds, name, "plain") for name in ("diagonal", "covariance")]
    return (f"{case.net}: {case.what}", *ours, theirs, _bound(bound, seconds["diagonal"] / seconds["plain"]))


def steps(case: Case, bench: Bench, peer: Peer, repeats: int) -> list[Row]:
    """100 values of the marginal likelihood, in CPU seconds: the decomposition
    counts, the fit does not.
    """
    batches = bench.batches(case)

    def after_fit(use: Any) -> Clock:
        def clock() -> float:
            guide = bench.guide(case).fit(batches)
            return timed(lambda: use(guide))()

        return clock

    ours: dict[str, Clock] = {
        "100 calls of log_evidence": after_fit(lambda g: [g.log_evidence(1.1**n) for n in range(-50, 50)]),
        "maximise_evidence": after_fit(lambda g: g.maximise_evidence()),
    }
    actions = dict(ours)
    note = _add_peer(actions, case, peer, ("steps",))
    seconds = rounds(actions, repeats, f"{case.net}: marginal likelihood")
    theirs = note or f"{seconds['peer: steps']:.2f} s"
    return [(f"{case.net}: {case.what}, {name}", f"{seconds[name]:.2f} s", theirs, "0.3 s") for name in ours]


def _add_peer(actions: dict[str, Clock], case: Case, peer: Peer, names: tuple[str, ...], **more: Any) -> str:
    """Let laplace-torch take part; the reason where it cannot."""
    if peer.python is None:
        return ABSENT
    try:
        first = [peer.ask(**case.request(name, **more))["seconds"] for name in names]
    except PeerError as error:
        return f"error: {str(error).splitlines()[0][:70]}"
    for name, seconds in zip(names, first, strict=True):
        actions[f"peer: {name}"] = _after(seconds, case.request(name, **more), peer)
    return ""


def _after(first: float, request: dict[str, Any], peer: Peer) -> Clock:
    """The call that was made already, then further ones."""
    done = iter([first])
    return lambda: next(done, None) or peer.ask(**request)["seconds"]


def _ratio(seconds: Mapping[str, float], name: str, plain: str) -> str:
    if name not in seconds:
        return "-"
    value = seconds[name] / seconds[plain]
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _bound(bound: float | None, reached: float) -> str:
    if bound is None:
        return ""
    return f"{bound:g}, missed" if reached > bound else f"{bound:g}"
