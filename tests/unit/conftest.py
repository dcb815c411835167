"""Unit tests run in as many processes as there are cores."""

import os

# Else scikit-learn and XGBoost start a thread for each core in each of them, and these wait for each other by spinning.
os.environ.setdefault("OMP_NUM_THREADS", "1")
