"""Count bits of words, in kernels: zeros at the low or the high end, and bits that are set."""

from __future__ import annotations

import numpy as np

from ragimpute.kernels.compile import kernel_intrinsic

WORD = 32
_CODE = "ragimpute.kernels.bits_code"

trailing_zeros = kernel_intrinsic(
    f"{_CODE}:trailing_zeros", lambda word: np.uint64((int(word) & -int(word)).bit_length() - 1)
)

leading_zeros = kernel_intrinsic(
    f"{_CODE}:leading_zeros", lambda word: np.uint32(32 - int(word).bit_length())
)

num_set = kernel_intrinsic(f"{_CODE}:num_set", lambda word: np.uint32(int(word).bit_count()))
