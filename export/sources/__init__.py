"""What models are exported from: ONNX files, Ultralytics checkpoints, TensorRT engines, fitted estimators."""
