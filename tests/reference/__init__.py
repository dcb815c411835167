"""Detections of Ultralytics, computed once and committed, so that a comparison needs no torch."""
