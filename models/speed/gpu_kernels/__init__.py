"""Kernels for NVIDIA GPUs, written in Triton, of the operations that planning spends its time on beside products."""
