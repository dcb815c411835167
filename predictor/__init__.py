"""The Triton tier: a real `tritonserver` without containers, and the backend that serves ONNX models in it."""
