"""What the same model is served with today: small servers, each as its own documentation recommends."""

import os

# Ultralytics reads it when it is imported: it installs nothing by itself.
os.environ["YOLO_AUTOINSTALL"] = "false"
