"""OpenVINO for the embedded Triton, which ships no backend for it; `model.py` is what Triton loads."""
