"""Detection: an image in, boxes out.

Two interfaces, distinguished by the model's input: `fused` takes `image` UINT8 height x width x channel and returns
candidates with their best class; `ultralytics` takes `images` FP32 channel x height x width in 0 to 1 and returns the
bare head. An image is letterboxed into the input, or stretched where `resize` in the metadata is `stretch`.
"""

from collections.abc import Mapping

from transformer.imaging.letterbox import Letterbox, unletterbox
from transformer.tasks.candidates import read_candidates, select
from transformer.tasks.detection_options import Selection
from transformer.tasks.objects import Detections, FindObjects
from transformer.tasks.task import Array, register
from transformer.triton.model import Model, ModelConfigError


class Detect(FindObjects[Detections]):
    """Images to boxes."""

    name = "detect"
    facts = ("resize", "class_scores")
    schema_name = "Detections"

    def check(self, model: Model) -> None:
        """Also how images come into the input."""
        super().check(model)
        if model.facts.get("resize", "stretch") != "stretch":
            got = f"{model.facts['resize']!r:.80}"
            raise ModelConfigError(
                f"{model.name}: resize in parameters.metadata: got {got}, expected 'stretch' or none"
            )

    def postprocess(
        self, outputs: Mapping[str, Array], model: Model, *, plan: Letterbox, options: Selection
    ) -> Detections:
        """Select among the model's candidates and map them to the image."""
        candidates = read_candidates(outputs, model, above=options.confidence)
        objects, reached = select(candidates, model, options)
        return Detections(unletterbox(objects.boxes, plan), objects.scores, objects.class_ids, reached)


DETECT = register(Detect())
