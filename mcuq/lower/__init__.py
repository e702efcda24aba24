"""Quantized graph to integer graph."""
