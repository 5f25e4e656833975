"""The progress bar: a notebook's own where ipywidgets can draw it, or else a terminal's."""

import warnings

from tqdm.asyncio import tqdm as text_tqdm

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "IProgress not found")  # lines serve as well
    from tqdm.auto import tqdm

__all__ = ["IS_IN_NOTEBOOK", "tqdm"]

IS_IN_NOTEBOOK = tqdm is not text_tqdm
