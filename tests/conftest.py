"""One thread a process: the tests' tensors are tiny, and pytest runs as many processes as there are cores."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # also for the processes that tests start

import torch

torch.set_num_threads(1)
