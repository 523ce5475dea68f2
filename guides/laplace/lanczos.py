"""The largest eigenpairs of a symmetric matrix that is known by its products with vectors."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

log = logging.getLogger(__name__)

BLOCK = 8
"""Vectors in one product: they share the passes that are the same for all, and more of them
converge more slowly.
"""


def top_eigenpairs(
    product: Callable[[Tensor], Tensor], like: Tensor, size: int, count: int, *, tolerance: float
) -> tuple[Tensor, Tensor]:
    """The `count` largest eigenvalues of A, descending, and their eigenvectors [pair, size], by
    block Lanczos.

    Every new block of A's Krylov space is made orthogonal to all before it, twice, so that no
    eigenvalue comes up a second time. One that more than `BLOCK` directions share may be found in
    fewer of them.

    It ends where |A v - l v| <= tolerance * l for every wanted pair, the relative error of l then
    being about tolerance^2; where the space is exhausted, which gives all eigenvalues that are not
    zero; or at `longest` vectors, which is logged.

    Args:
        product: A v for every v in [vector, size]; A positive semi-definite.
        like: gives precision and device.
        size: of A.
        count: wanted pairs; fewer are returned where the others are zero.
        tolerance: see above.

    Reference: Golub and Underwood (1977), The block Lanczos method for computing eigenvalues.

    >>> A = torch.diag(torch.tensor([1.0, 3.0, 2.0, 0.0]))
    >>> top_eigenpairs(lambda v: v @ A, A, 4, 2, tolerance=1e-6)[0].float()
    tensor([3.0000, 2.0000])
    """
    basis = like.new_empty(longest(size, count), size)  # memory is taken when it is written
    T = torch.zeros(len(basis), len(basis), dtype=torch.double, device=like.device)
    generator = torch.Generator().manual_seed(0)
    known, held, end = None, 0, 0
    block = _fresh(basis[:0], generator)
    while True:
        held, end = end, end + len(block)
        basis[held:end] = block
        image = product(block)
        if not bool(torch.isfinite(image).all()):
            raise ValueError("Laplace: the curvature is not finite; are the likelihood's fisher and the derivatives?")
        image, column = _orthogonal(image, basis[:end])
        T[:end, held:end] = column.double()
        T[held:end, :end] = column.double().mT
        left, lengths, right = torch.linalg.svd(image.mT, full_matrices=False)
        values, vectors = (part.flip(-1) for part in torch.linalg.eigh(T[:end, :end]))
        zero = 100 * torch.finfo(like.dtype).eps * values[0]
        # A z - l z = image^T (the last entries of z in the basis)
        rest = (lengths.double().unsqueeze(-1) * (right.double() @ vectors[held:, :count])).norm(dim=0)
        values, vectors = values[:count], vectors[:, :count]
        new, room = lengths > zero, len(basis) - end
        if not bool(new.any()):  # an invariant space: is there another with eigenvalues as large?
            positive = values[values > zero]
            if not room or (
                known is not None and len(known) == len(positive) and bool((positive <= known * 1.001).all())
            ):
                break
            known, block = positive, _fresh(basis[:end], generator)[:room]
        elif (end >= count and bool((rest <= tolerance * values).all())) or not room:
            break
        else:
            block = torch.linalg.qr(_orthogonal(left.mT[new][:room], basis[:end])[0].mT)[0].mT
    kept = values > zero
    values, vectors, rest = values[kept], vectors[:, kept], rest[kept]
    if bool((rest > tolerance * values).any()):
        worst = float((rest / values).max())
        log.warning("Lanczos: %d products leave the eigenpairs with errors up to %.2g of the eigenvalue", end, worst)
    return values, vectors.mT.to(like) @ basis[:end]


def longest(size: int, count: int) -> int:
    """The largest number of vectors that are held at once."""
    return min(size, 4 * count + 4 * BLOCK)


def _orthogonal(vectors: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """The part of the vectors outside the basis, and the coefficients
    [basis, vector] of the part inside.
    """
    first = basis @ vectors.mT
    vectors = vectors - first.mT @ basis
    second = basis @ vectors.mT
    return vectors - second.mT @ basis, first + second


def _fresh(basis: Tensor, generator: torch.Generator) -> Tensor:
    """Random directions outside the basis, orthonormal."""
    size = basis.shape[1]
    drawn = torch.randn(min(BLOCK, size), size, generator=generator, dtype=torch.double).to(basis)
    return torch.linalg.qr(_orthogonal(drawn, basis)[0].mT)[0].mT
