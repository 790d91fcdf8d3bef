"""The package ``faiss``, or one line that says why it cannot be used.

Builds of it fail in their own ways where a library of CUDA is absent, or where another build has
overwritten some of their files: by ImportError, RuntimeError or OSError.
"""

from __future__ import annotations

from ragimpute.extras import explain_import

try:
    import faiss
except Exception as error:
    raise explain_import(error, "faiss") from error

__all__ = ["faiss"]
