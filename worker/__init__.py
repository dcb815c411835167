"""The queue worker: messages that point to images in, detections as JSON beside the images out."""
