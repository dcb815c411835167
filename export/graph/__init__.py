"""Operations on ONNX graphs: fuse the head of a detector, lower its precision, check what Triton can load."""
