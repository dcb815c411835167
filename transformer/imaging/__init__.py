"""Images: decode, letterbox, non-maximum suppression, annotation. Arrays in, arrays out."""
