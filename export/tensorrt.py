"""TensorRT."""

PLANS = {cc: f"model.cc{cc.replace('.', '')}.plan" for cc in ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")}
