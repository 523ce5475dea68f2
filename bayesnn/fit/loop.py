"""Train any loss module on any loader: the one loop of the package."""

import logging
import math
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import nn

from bayesnn.fit.batches import device_of, length, move, remaining
from bayesnn.fit.checkpoint import Checkpoint, fingerprint
from bayesnn.fit.checks import check_arguments, check_repeatable
from bayesnn.fit.convergence import eighths
from bayesnn.fit.history import History, RunState
from bayesnn.fit.interrupts import uninterrupted
from bayesnn.fit.preparation import (
    Groups,
    OptimizerFactory,
    Schedule,
    make_optimizer,
    make_schedule,
    trainable,
    warm_up,
)
from bayesnn.fit.processes import Processes
from bayesnn.fit.randomness import capture, generators_of, new_seed, noise
from bayesnn.fit.step import Step
from bayesnn.fit.training_size import TrainingSize
from bayesnn.functional import alone, progress_bar

log = logging.getLogger(__name__)
_FITTING = threading.RLock()  # `validate` may fit something itself


def fit(
    loss: nn.Module,
    loader: Iterable[Any],
    *,
    epochs: int,
    optimizer: OptimizerFactory = torch.optim.Adam,
    groups: Groups | None = None,
    schedule: Schedule | None = None,
    clip: float | None = None,
    validate: Callable[[], float] | None = None,
    patience: int | None = None,
    checkpoint: str | Path | None = None,
    every: int = 100,
    fabric: Any = None,
    progress: bool = True,
) -> History:
    """theta_t+1 = step(theta_t, grad loss(theta_t; batch_t)): minimise a loss module over the
    batches of a loader.

    The loss is any `nn.Module` called as loss(*batch) -> one number, such as
    `Trace_ELBO()(model, guide)`; a batch that is a single tensor or a dict is passed as it is.
    Exactly `loss.parameters()` are trained. Parameters made at the first call (Pyro's autoguides)
    are made by one call on the first batch, with all random states put back. Batches are moved to
    the loss's device.

    Noise: in each step the loss draws from a stream of its own, which follows from a seed (drawn
    from torch's global generator) and the number of the step, so it does not depend on workers or
    processes. `validate` sees the same noise each time, so that epochs are compared on equal
    terms. Shuffling and augmentation draw from the global generators of torch, Python and NumPy or
    from a `torch.Generator` called `.generator` of loader, sampler or data set.

    Resume: with `checkpoint`, what stops the run (Ctrl-C, which waits for the end of the step and
    is raised on; an error; a kill) loses nothing, a kill at most `every` steps. The same call goes
    on from the file, bit for bit on the CPU as if it had never stopped; of a finished run it
    returns the History, or trains on if `epochs` is larger now. The options of the optimiser are
    then those of the file.

    Several processes: give a launched Lightning `Fabric` (one device or DDP; under `torchrun`, the
    same call). Each process gets its shard of the loader and the *same* noise, so that global
    sites have one value in all of them: for a loss without per-example noise the steps equal those
    of one process with the whole batch, otherwise in expectation. A loss scaled by size / batch
    needs no change: gradients are averaged over processes.

    Training data: where the loss has a `model` with a `size`, the loader is compared with it. With
    size=None each batch would count as all data: several batches are refused, before the first
    step where the loader has a length, at the second batch otherwise. More examples than `size`
    are refused, clearly fewer give a warning. What is not known is not checked: a loss written by
    hand, a loader without a length under a model without a `size`, which has to end its epochs.

    Args:
        loss: what is minimised.
        loader: gives batches, anew each time it is iterated: a `DataLoader` or a list.
        epochs: passes over the loader, those before an interruption included.
        optimizer: parameter groups -> torch optimiser, such as
            `partial(torch.optim.AdamW, lr=1e-2)`; Adam's own learning rate is 1e-3.
        groups: (name, parameter) -> options of its group, such as another "lr" or "weight_decay";
            {} for the default.
        schedule: optimiser -> LRScheduler, stepped after each optimiser *step* (not epoch).
        clip: largest Euclidean norm of the whole gradient.
        validate: () -> a number, smaller is better, after each epoch.
        patience: stop after this many epochs without improvement; the best epoch's parameters are
            then restored, also where all epochs were run.
        checkpoint: file to write and to resume from.
        every: steps between two checkpoints.
        fabric: for precision, devices and several processes.
        progress: show a bar on stderr.

    Returns:
        History: mean loss and validation value of each epoch, why the run stopped, and whether the
            loss still fell then, which without `patience` is also logged as a warning of
            `bayesnn.fit.loop`.

    Raises:
        FloatingPointError: loss, gradient or validation value is not finite: with step and cause,
            before the update.
        ValueError: an empty loader, no trainable parameter, several batches for a model of
            size=None, a model size below the number of training examples, a checkpoint of another
            model, subset, optimiser, schedule, loader or version, a damaged one, options of a
            group that the optimiser lacks, an argument out of range.
        RuntimeError: another thread is fitting.
        TypeError: a loss that is no module or gives no single number, a loader that can be read
            only once, a factory that makes something else.

    >>> from functools import partial
    >>> class Squares(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.centre, self.log_scale = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))
    ...     def forward(self, x):
    ...         return (0.5 * ((x - self.centre) / self.log_scale.exp()) ** 2 + self.log_scale).mean()
    >>> loss = Squares()
    >>> history = fit(loss, [(torch.tensor([1.0, 3.0]),)], epochs=300, optimizer=partial(torch.optim.Adam, lr=0.1),
    ...               groups=lambda name, p: {"lr": 0.03} if name.startswith("log_") else {}, progress=False)
    >>> round(loss.centre.item(), 2), history.epochs, history.stopped
    (2.0, 300, 'epochs')
    """
    if not _FITTING.acquire(blocking=False):
        raise RuntimeError(
            "fit: another fit is running in another thread; Pyro's handler stack and the random states are shared by "
            "all threads; run them in processes"
        )
    try:
        check_arguments(loss, epochs=epochs, every=every, clip=clip, patience=patience, validate=validate)
        if checkpoint is not None:
            check_repeatable(loader)
        processes = Processes(fabric)
        moving = warm_up(loss, loader)
        size = TrainingSize("fit", getattr(loss, "model", None), loader, processes=processes.count)
        parameters = trainable(loss)
        raw = make_optimizer(parameters, optimizer, groups)
        scheduler = make_schedule(raw, schedule)
        module, stepper, loader = processes.setup(loss, raw, loader)
        buffers = dict(loss.named_buffers())
        step = Step(module, parameters, [buffers[name] for name in moving], stepper, scheduler, clip, processes)
        generators, device = generators_of(loader), device_of(loss)

        saved = state = None
        if checkpoint is not None:
            parts = {"optimizer": raw, "schedule": scheduler, "precision": processes.precision, "loss": loss}
            identity = fingerprint(loss, raw, scheduler, loader, processes.count)
            saved = Checkpoint(checkpoint, parts, identity, writes=processes.rank == 0)
            state = saved.read()
        if state is None:
            seed = processes.broadcast(new_seed())
            state = RunState(seed, processes.gather(capture(generators)))
            if saved is not None:
                # a path that cannot be written fails now, not after the first interval
                saved.write(state)
        if reason := state.stopped(epochs, patience):
            return _finish(loss, state, reason, patience)

        total = None if (batches := length(loader)) is None else epochs * batches
        silent = not progress or processes.rank > 0
        try:
            with progress_bar(desc="fit", unit="step", show=not silent, total=total, initial=state.steps) as bar:
                while not (reason := state.stopped(epochs, patience)):
                    size.begin(state.batch)
                    for batch in remaining(loader, state, processes.rank):
                        size.see(batch)
                        with alone(), uninterrupted(), noise(state.seed, state.steps + 1):
                            step(move(batch, device), state)
                        if saved is not None and state.steps % every == 0:
                            saved.write(state)
                        if bar.update():
                            bar.set_postfix(epoch=state.epoch + 1, loss=f"{state.total / state.batch:.4g}")
                    size.end()
                    value = None if validate is None else _validation(validate, state, processes)
                    with uninterrupted():
                        state.close_epoch(processes.gather(capture(generators)), value, loss if patience else None)
        except BaseException as error:
            _keep(error, saved, state, step)
            raise
        if saved is not None:
            saved.write(state)
        raw.zero_grad()
        history = _finish(loss, state, reason, patience)
        if history.still_falling and patience is None and processes.rank == 0:
            _warn(history)
        return history
    finally:
        _FITTING.release()


def _validation(validate: Callable[[], float], state: RunState, processes: Processes) -> float:
    with alone(), noise(state.seed, 0):  # steps count from 1
        value = processes.mean(float(validate()))
    if math.isnan(value):
        raise FloatingPointError(
            f"fit: validate returned nan after epoch {state.epoch + 1}, which no other epoch can be compared with; "
            f"check the validation data and the predictions on them"
        )
    return value


def _keep(error: BaseException, saved: Checkpoint | None, state: RunState, step: Step) -> None:
    """Write the state after the last complete step, and note on the error how to go on from it."""
    where = f"fit stopped after step {state.steps} (batch {state.batch} of epoch {state.epoch + 1})"
    if step.torn:
        where += " in the middle of an update, so that the parameters in memory are of no use"
        remedy = "checkpoint= would have kept earlier ones" if saved is None else f"{saved.path} holds earlier ones"
    elif saved is None:
        remedy = "the loss holds the parameters of that step; with checkpoint= the run could go on from there"
    else:
        try:
            saved.write(state)
            remedy = f"{saved.path} holds the run; call fit again with the same arguments and it goes on from there"
        except Exception as failure:
            # a full disk: what stopped the run is what the caller has to see
            remedy = f"{saved.path} holds an earlier step, since it could not be written now ({failure!r})"
    error.add_note(f"{where}: {remedy}.")


def _warn(history: History) -> None:
    last, before = map(fmean, eighths(history.loss))
    log.warning(
        "fit: the loss was still falling when the %d epochs were over: its mean was %.5g over the last eighth of them "
        "and %.5g over the eighth before; give more epochs, or a larger learning rate (see History.still_falling)",
        history.epochs, last, before,
    )  # fmt: skip


def _finish(loss: nn.Module, state: RunState, reason: str, patience: int | None) -> History:
    if patience is not None and state.best is not None:
        loss.load_state_dict(state.best)
    return state.history(reason)
