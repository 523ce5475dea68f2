"""The door in: real data that come with PyPI packages, images far from them, and loaders as
tensors.

Everything is given as tensors on the CPU: images as float32 `[n, 1, 28, 28]` with intensities from
0 (paper) to 1 (ink), labels as int64 `[n]`, regression as `x [n, d]`, `y [n, 1]`. Nothing is
downloaded unless a call says so, and what a function needs beyond torch is imported when it is
called.
"""

from bayesnn.data.digits import fashion_mnist as fashion_mnist
from bayesnn.data.digits import mnist as mnist
from bayesnn.data.digits import mnist5k as mnist5k
from bayesnn.data.digits import sklearn_digits as sklearn_digits
from bayesnn.data.glyphs import LETTERS as LETTERS
from bayesnn.data.glyphs import letters as letters
from bayesnn.data.loading import split as split
from bayesnn.data.loading import tensors as tensors
from bayesnn.data.regression import auto_mpg as auto_mpg
from bayesnn.data.regression import boston_housing as boston_housing
from bayesnn.data.regression import diabetes as diabetes
from bayesnn.data.regression import toy_regression as toy_regression
from bayesnn.data.shifted import noisy as noisy
from bayesnn.data.shifted import rotated as rotated
