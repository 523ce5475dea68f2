"""Roots of positive semi-definite matrices, whatever their rank."""

import torch
from torch import Tensor


def semidefinite_root(matrix: Tensor) -> Tensor:
    """R with R R^T = matrix, [..., n, rank], for positive semi-definite matrices [..., n, n] of
    any rank.

    Cholesky's algorithm with diagonal pivoting: it takes the largest remaining variance first and
    stops where that is zero up to rounding (n eps times the largest of all). `rank` is the largest
    in the batch; matrices of less have columns of zeros. For small n and large batches: it loops
    over the columns.

    Reference: Higham (2002), Accuracy and stability of numerical algorithms, section 10.3.

    >>> semidefinite_root(torch.tensor([[1.0, 1.0], [1.0, 1.0]]))
    tensor([[1.],
            [1.]])
    """
    n = matrix.shape[-1]
    rest = matrix.clone()
    variances = rest.diagonal(dim1=-2, dim2=-1)
    smallest = n * torch.finfo(matrix.dtype).eps * variances.amax(-1)
    columns = []
    for _ in range(n):
        pivot, where = variances.max(-1)
        there = pivot > smallest
        if not bool(there.any()):
            break
        column = rest.gather(-1, where[..., None, None].expand(*rest.shape[:-1], 1)).squeeze(-1)
        factor = torch.where(there, pivot, torch.ones_like(pivot)).rsqrt() * there
        column = column * factor.unsqueeze(-1)
        rest -= column.unsqueeze(-1) * column.unsqueeze(-2)
        # What is left of the pivot's own row is rounding, which must not be taken again.
        variances.scatter_(-1, where.unsqueeze(-1), 0.0)
        columns.append(column)
    return torch.stack(columns, -1) if columns else matrix[..., :0]


def triangular(root: Tensor) -> Tensor:
    """The lower triangular L with L L^T = root root^T, [..., n, n], of a root [..., n, column].

    By a QR decomposition of the root's transpose: unlike a Cholesky factor of root root^T, it
    exists whatever the rank is, and keeps the digits of directions with little variance.
    """
    upper = torch.linalg.qr(root.mT, mode="r").R
    signs = torch.where(upper.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(upper.dtype)
    lower = (upper * signs.unsqueeze(-1)).mT  # [..., n, min(n, column)]
    missing = root.shape[-2] - lower.shape[-1]
    return torch.nn.functional.pad(lower, (0, missing)) if missing else lower
