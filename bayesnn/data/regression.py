"""Small regression sets: one that can be drawn, and real ones."""

from typing import Any

import torch
from torch import Tensor

from bayesnn.data._optional import needed


def toy_regression(
    n: int = 100, *, noise: float = 0.1, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """`y = cos(4 x + 0.8) + noise * e`, e ~ N(0, 1): the first half of x in [-1, -0.7], the others
    in [0.5, 1].

    Between the two clusters there are no data: what a posterior says there is its uncertainty "in
    between".

    Shapes: x `[n, 1]`, y `[n, 1]`, float32; the left cluster comes first.
    Units: x and y have none; noise is the standard deviation of y given x.

    Raises:
        ValueError: n below 2, or negative noise.

    Source: Foong, Li, Hernández-Lobato and Turner (2019), 'In-between' uncertainty in Bayesian
    neural networks, arXiv:1906.11537.

        >>> from bayesnn.data import toy_regression
        >>> x, y = toy_regression(50)
        >>> x.shape, y.shape
        (torch.Size([50, 1]), torch.Size([50, 1]))
    """
    if n < 2:
        raise ValueError(f"toy_regression: n is {n}; two clusters need 2 points or more")
    if not noise >= 0:
        raise ValueError(f"toy_regression: noise is {noise}; give a standard deviation, 0 or more")
    uniform = torch.rand(n, 1, generator=generator)
    x = torch.cat([-1 + 0.3 * uniform[: n // 2], 0.5 + 0.5 * uniform[n // 2 :]])
    return x, torch.cos(4 * x + 0.8) + noise * torch.randn(n, 1, generator=generator)


def diabetes() -> tuple[Tensor, Tensor]:
    """`(x, y)`: 442 patients, ten measurements each, and how far their diabetes had progressed a
    year later.

    Shapes: x `[442, 10]`, y `[442, 1]`, float32. The columns: age, sex, body mass index, mean
    blood pressure and six blood serum measurements (s1 to s6).
    Units: x in standard deviations of its column over all patients, about its mean; y in the
    points of the study's score of progression (25 to 346).

    Raises:
        ImportError: scikit-learn is not installed.

    Source: Efron, Hastie, Johnstone and Tibshirani (2004), Least angle regression, Annals of
    Statistics 32.

        >>> from bayesnn.data import diabetes
        >>> x, y = diabetes()
        >>> x.shape
        torch.Size([442, 10])
    """
    with needed("scikit-learn", by="diabetes"):
        from sklearn.datasets import load_diabetes
    data = load_diabetes(scaled=False)
    x = torch.from_numpy(data.data)
    x = (x - x.mean(0)) / x.std(0, correction=0)
    return x.to(torch.float32), torch.from_numpy(data.target).to(torch.float32)[:, None]


def boston_housing() -> tuple[Tensor, Tensor]:
    """`(x, y)`: 506 areas of Boston in the 1970s, thirteen measurements each, and the median value
    of their homes.

    The reference set of regression with Bayesian networks. Its last measurement but one, B, was
    made from the share of Black residents, under the assumption that it acts on prices; it is kept
    here so that results can be compared, and is a reason to draw no conclusion about housing from
    these data. Values were cut off at 50.

    Shapes: x `[506, 13]`, y `[506, 1]`, float32.
    Units: x as in the source, not standardised; y in thousands of dollars (5 to 50).

    Raises:
        ImportError: mlxtend is not installed.

    Source: Harrison and Rubinfeld (1978), Hedonic prices and the demand for clean air, Journal of
    Environmental Economics and Management 5.

        >>> from bayesnn.data import boston_housing
        >>> x, y = boston_housing()
        >>> x.shape
        torch.Size([506, 13])
    """
    with needed("mlxtend", by="boston_housing"):
        from mlxtend.data import boston_housing_data
    return _tensors(*boston_housing_data())


def auto_mpg() -> tuple[Tensor, Tensor]:
    """`(x, y)`: 392 cars of 1970 to 1982, seven measurements each, and how far they go on a
    gallon.

    Shapes: x `[392, 7]`, y `[392, 1]`, float32. The columns: cylinders, displacement, horsepower,
    weight, acceleration, model year and origin (1 America, 2 Europe, 3 Japan). Six cars without
    horsepower are left out. Units: x as in the source, not standardised; y in miles per gallon (9
    to 46.6).

    Raises:
        ImportError: mlxtend is not installed.

    Source: Quinlan (1993), Combining instance-based and model-based learning, ICML.

        >>> from bayesnn.data import auto_mpg
        >>> x, y = auto_mpg()
        >>> x.shape
        torch.Size([392, 7])
    """
    with needed("mlxtend", by="auto_mpg"):
        from mlxtend.data import autompg_data
    x, y = autompg_data()
    # the eighth column is the car's name, which the package reads as nan
    return _tensors(x[:, :7], y)


def _tensors(x: Any, y: Any) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(x).to(torch.float32), torch.from_numpy(y).to(torch.float32)[:, None]
