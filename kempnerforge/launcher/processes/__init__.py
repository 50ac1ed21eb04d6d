"""Processes and signals, as the kernel has them."""
