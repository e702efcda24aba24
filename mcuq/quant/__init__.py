"""Quantizers, calibration, sensitivity and quantization-aware training."""
