"""Limits of numbers in config.pbtxt that decide how much is allocated or started, with a reason for each."""

MAX_ENTRIES = 8192  # of a list or a map: a table with an input for each column has thousands
MAX_NAME = 512  # characters of a tensor's name: exporters write paths of modules
MAX_TENSOR_DIMS = 16  # NumPy's and Triton's clients take 32
MAX_ELEMENTS = 2**26  # of a tensor: an image of 4,700 x 4,700 in FP32, 256 MiB; the trial holds one twice
MAX_BATCH_ELEMENTS = 2**29  # of a batch that OpenVINO allocates when it loads: 64 images of 1280 x 1280, 2 GiB
MAX_SIDE_PX = 8192  # of `imgsz`: twice what the largest aerial models take
MAX_STRIDE = 1024  # of a grid: detectors have 8 to 128
MAX_CHANNELS = 64  # of an image: satellites have 13
MAX_LABELS = 100_000  # ImageNet-21k has 21,843
MAX_LABEL = 1000  # characters of a label or of a feature's name
MAX_KEYPOINTS = 512  # of an object: a face mesh has 478
MAX_DELAY_US = 60_000_000  # that a request may wait for others to join it: a minute is longer than any client waits
MAX_INSTANCES = 64  # each is a process or a stream with its own copy of what it works on
MAX_THREADS = 1024  # of all instances: what the largest machines have
MAX_WARMUP_RUNS = 1000
MAX_WARMUP_ELEMENTS = 100_000_000  # of all runs together: 20 images of 1280 x 1280
