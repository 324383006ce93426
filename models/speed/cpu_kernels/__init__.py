"""Kernels for CPUs, written in C++ and built at first use, of what torch's own take too long for beside products."""
