"""Functions that become machine code, as Python knows them before numba is imported.

Importing numba takes .15 s, and a run whose kernels were compiled before needs nothing of it. So
the decorators of ``compile`` give objects of these classes. numba asks them for their types, when
it compiles a kernel that calls them, by the attribute ``_numba_type_``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, update_wrapper
from typing import Any


class CompiledFunction:
    """A function that numba compiles.

    Parameters
    ----------
    function
        What is to be compiled.
    kind
        How: the name of one of the options in :mod:`ragimpute.kernels.with_numba`.

    Attributes
    ----------
    py_func
        The function.
    """

    def __init__(self, function: Callable[..., Any], kind: str) -> None:
        update_wrapper(self, function)
        self.py_func, self.kind = function, kind

    @cached_property
    def dispatcher(self) -> Any:
        """What numba compiles and calls."""
        from ragimpute.kernels.with_numba import dispatcher_of

        return dispatcher_of(self.py_func, self.kind)

    @property
    def _numba_type_(self) -> Any:
        return self.dispatcher._numba_type_

    def __getattr__(self, name: str) -> Any:
        """All else that numba's dispatchers have, such as ``compile`` and ``signatures``."""
        if name.startswith("__") or name == "dispatcher":
            raise AttributeError(name)
        return getattr(self.dispatcher, name)

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self.dispatcher(*args, **named)


class KernelIntrinsic:
    """A function that kernels call, and that the compiler writes itself.

    Parameters
    ----------
    definition
        "module:function": how, as ``numba.extending.intrinsic`` takes it. The module is one of
        ``kernels/*_code.py``, and is imported when a kernel is compiled.
    python_form
        A function that does the same in Python.
    """

    def __init__(self, definition: str, python_form: Callable[..., Any]) -> None:
        self.definition, self.python_form = definition, python_form

    @cached_property
    def _numba_type_(self) -> Any:
        from ragimpute.kernels.with_numba import type_of_intrinsic

        return type_of_intrinsic(self.definition)

    def __call__(self, *args: Any) -> Any:
        raise NotImplementedError(f"{self.definition} can be called in kernels only")
