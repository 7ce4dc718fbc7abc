"""Triton kernels of the fast path; `triton_ops` launches them.

Each does what the operation of the same name in `torch_ops.TorchOps` does, in one pass over memory,
and uses no feature newer than Ampere (sm_86). Tests compare the two in Triton's interpreter on a
CPU and in bfloat16 on a GPU.

Notation: matrices are [tokens, features], row-major, with a row stride in elements. K (`inner`) is
the number of input features; an extended matrix holds LoRA's columns after them (see `operands`).
`row` and `at` are the rows and columns of a program's tile; masks such as `row_ok` cut off what
lies outside, because tile sizes are powers of two and shapes are not.

Precision: values are computed in float32 and rounded once, when they are stored. "ieee" keeps
float32 inputs of a product in full precision instead of TF32; bfloat16 is not affected. A tile of
`tl.dot` has at least 16 rows and columns, so ranks are padded to PADDED >= 16 with zeros.

Row offsets are 64-bit: tokens times stride passes 2^31 in long windows of wide models. Arguments
that differ from window to window are in `do_not_specialize`, as Triton compiles a variant for
integers that are 1 or multiples of 16.
"""
