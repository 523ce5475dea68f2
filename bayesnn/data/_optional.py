"""One clear error for a package that is needed by one function only and is not there."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needed(package: str, *, by: str) -> Iterator[None]:
    """Turn an import that fails inside the block into an `ImportError` with the line that repairs
    it.

    `package` is the name that pip knows, `by` the function that needs it.

    Raises:
        ImportError: what could not be imported, and the pip line.
    """
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f"{by}: needs the package {package}, which cannot be imported ({error}). Repair: pip install '{package}'"
        ) from error
