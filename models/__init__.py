"""The networks, and what decodes them."""

import torch

torch.zeros(1).sin()  # MKL's first call must be one thread's: of several at once, one may take another path
