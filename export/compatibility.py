"""What the oldest Triton that is supported can load: 24.10, with ONNX Runtime 1.19."""

import onnx

from export.errors import ExportError

# Tried on ONNX Runtime 1.19.2: it refuses one more of the first two ("is till opset 21", "max supported IR version:
# 10"); of ai.onnx.ml it took 5, its table of versions promises 4.
MAX_IR_VERSION = 10
MAX_OPSETS = {"": 21, "ai.onnx.ml": 4}


def check(model: onnx.ModelProto) -> None:
    """Refuse a model that ONNX Runtime 1.19 does not load.

    Raises:
        ExportError: IR version or an opset is too new, an operator is no standard one, or the graph is not sound.
    """
    if model.ir_version > MAX_IR_VERSION:
        raise ExportError(
            f"IR version: got {model.ir_version}, expected at most {MAX_IR_VERSION} (Triton 24.10, ONNX Runtime 1.19): "
            "export it again with an older onnx"
        )
    for opset in model.opset_import:
        domain = "" if opset.domain == "ai.onnx" else opset.domain
        name = domain or "ai.onnx"
        limit = MAX_OPSETS.get(domain)
        if limit is None:
            if any(node.domain == domain for node in model.graph.node):
                raise ExportError(f"operators: got some of {name}, which a stock ONNX Runtime may not have")
        elif opset.version > limit:
            raise ExportError(
                f"opset of {name}: got {opset.version}, expected at most {limit} (Triton 24.10, ONNX Runtime 1.19): "
                "export it again for an older one (Ultralytics: opset=17)"
            )
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
        raise ExportError(f"the graph is not sound: {exc}") from exc
