"""The tasks of models that load tests measure, by what a request carries."""

# Each with the shipped image that shows what it finds.
PICTURES = {
    "detect": "digits.jpg",
    "segment": "digits.jpg",
    "pose": "digits.jpg",
    "obb": "tilted-digits.jpg",
    "classify": "seven.png",
    "semantic": "digits.jpg",
    "depth": "digits.jpg",
}
IMAGE_TASKS = frozenset(PICTURES)
TABLE_TASKS = frozenset({"tabular"})
TASKS = IMAGE_TASKS | TABLE_TASKS
