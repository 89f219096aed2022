"""Benchmarks of Wakeline beside the usual alternative and beside the limit of the machine."""
