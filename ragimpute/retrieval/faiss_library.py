"""Import the package ``faiss``, or raise an error that says in one line why it cannot be used.

Importing it can fail with ImportError, RuntimeError or OSError, depending on the build: for example
if a CUDA library is missing, or if another build has overwritten some of its files.
"""

from __future__ import annotations

from ragimpute.extras import explain_import

try:
    import faiss
except Exception as error:
    raise explain_import(error, "faiss") from error

__all__ = ["faiss"]
