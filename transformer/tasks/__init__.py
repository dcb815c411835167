"""What a model does with its input, one module for each task.

Each has `preprocess` (a client's item to the model's input) and `postprocess` (the model's outputs to a result): pure
functions on arrays that know neither protocol nor process. `export` runs the same functions to prove a model.
"""
