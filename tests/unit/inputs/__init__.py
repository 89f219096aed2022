"""Inputs without Temporal."""
