"""Li-Stephens copying: parameters, windows, states and kernels."""
