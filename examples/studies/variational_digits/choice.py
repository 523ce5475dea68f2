"""Settings chosen on images that were held out of the training, by the same
rule for every method.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor
from tqdm import tqdm

from examples.studies.common.predictors import Predictor, log_losses
from examples.studies.common.training import Setting, Task
from examples.studies.variational_digits.methods import Method, Ways


@dataclass(frozen=True)
class Candidate:
    """A training, its loss on the held-out images in nats and what it cost in CPU seconds."""

    setting: Setting
    ways: Ways
    loss: float
    seconds: float

    @property
    def predictor(self) -> Predictor:
        """The method's own."""
        return next(iter(self.ways.values()))


def candidates(name: str, method: Method, task: Task, held: tuple[Tensor, Tensor]) -> list[Candidate]:
    """Every setting that was tried."""
    found: list[Candidate] = []
    with tqdm(total=len(method.first) + len(method.gains), desc=name, unit="fit") as bar:

        def attempt(setting: Setting) -> None:
            start = time.process_time()
            ways = method.fit(task, setting)
            seconds = time.process_time() - start
            loss = float(log_losses(next(iter(ways.values())), *held).mean())
            found.append(Candidate(setting, ways, loss, seconds))
            bar.update()

        for setting in method.first:
            attempt(setting)
        centre = best(found).setting
        for gain in method.gains:
            attempt(replace(centre, gain=gain))
    return found


def best(found: list[Candidate], which: Callable[[Setting], bool] = lambda setting: True) -> Candidate:
    """The smallest loss on held-out images, among settings of a kind."""
    return min((one for one in found if which(one.setting)), key=lambda one: one.loss)
