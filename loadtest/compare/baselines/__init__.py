"""Servers that the same model is served with today, small ones, each as its own documentation recommends."""

import os

# Ultralytics reads it when it is imported, and installs no packages then.
os.environ["YOLO_AUTOINSTALL"] = "false"
