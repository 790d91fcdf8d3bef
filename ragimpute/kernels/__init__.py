"""How kernels are compiled, keyed and shipped; bits, SIMD rows, transposes and linear maps in
kernels."""
