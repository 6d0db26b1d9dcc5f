"""Kernels in C, which the user's own compiler makes into a library at their first use."""
