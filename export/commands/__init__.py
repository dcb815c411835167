"""The commands of `python -m export`: the parser of each beside the function that runs it.

A command imports what it needs when it runs: torch, scikit-learn and XGBoost are for their own commands alone, and
`tensorrt` runs in a Python that has little else than onnx.
"""
