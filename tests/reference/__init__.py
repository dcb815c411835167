"""What Ultralytics itself finds, computed once and committed, so that comparing needs no torch."""
