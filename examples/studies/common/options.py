"""The command line: every bad value is one clear line on stderr and exit code 2."""

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch

IMAGES = 5_000
LEAST, MOST = 100, 4_500  # training images: ten of each class, and something left to test on


@dataclass(frozen=True)
class Options:
    """What a run does by default; SMOKE=1 in the environment makes everything
    small, to see only that it runs.
    """

    out: Path = Path("quickstart-output")
    seed: int = 0
    device: torch.device = torch.device("cpu")
    epochs: int = 40
    train_size: int = 1_000
    members: int = 5
    folds: int = 4
    weights: int = 1_000  # of the sub-network
    draws: int = 100
    largest: int = 4_000  # most images of a set that predictions are made for
    outside: int = 1_000  # images out of distribution, of each kind


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage."""
        self.exit(2, f"{self.prog}: {message}\n")


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Options from the command line; the process ends with code 2 where a value is bad."""
    smoke = bool(os.environ.get("SMOKE"))
    parser = _Parser(
        prog="python -m examples.quickstart",
        description="Laplace approximations of a network that reads digits, against MAP and an ensemble.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=_folder, default=Options.out, help="folder for everything that is written")
    parser.add_argument(
        "--seed", type=_whole(0, 2**31 - 1), default=Options.seed, help="of the split, the networks and the draws"
    )
    parser.add_argument("--device", type=_device, default=Options.device, help="cpu, cuda, cuda:1, ...")
    parser.add_argument(
        "--epochs",
        type=_whole(1, 10_000),
        default=2 if smoke else Options.epochs,
        help="passes over the training images",
    )
    parser.add_argument(
        "--train-size",
        type=_whole(LEAST, MOST),
        default=LEAST if smoke else Options.train_size,
        help=f"training images, {LEAST} to {MOST:,}; all others of the {IMAGES:,} are for the test",
    )
    given = vars(parser.parse_args(arguments))
    try:
        given["out"].mkdir(parents=True, exist_ok=True)
        (given["out"] / ".writable").touch()
        (given["out"] / ".writable").unlink()
    except OSError as error:
        parser.error(f"argument --out: nothing can be written to {given['out']} ({error.strerror})")
    small: dict[str, Any] = (
        {"members": 2, "folds": 2, "weights": 40, "draws": 20, "largest": 60, "outside": 30} if smoke else {}
    )
    return Options(**given, **small)


def _whole(least: int, most: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"a whole number from {least} to {most} is needed, not {text!r}")
        return value

    return convert


def _device(text: str) -> torch.device:
    try:
        device = torch.device(text)
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no device; name one such as cpu, cuda or cuda:1") from error
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().split(".")[0].splitlines()[0]
        raise argparse.ArgumentTypeError(f"{text!r} cannot be used here ({reason}); try cpu") from error
    return device


def _folder(text: str) -> Path:
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a file, and a folder is needed")
    return path
