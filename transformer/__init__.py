"""The pre- and post-processing tier: images and rows in, tensors to Triton, JSON out."""

SERVER_NAME = "nereid"
