"""Backends for the embedded Triton, which ships none for ONNX: each folder with a `model.py` is one."""
