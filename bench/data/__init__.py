"""Where examples come from: embedded and downloaded sets, Parquet files, image folders.

`open_dataset` turns a name as written into a `Dataset`; nothing is read until it is asked for, and
torch, torchvision, scikit-learn and pyarrow are imported only then.
"""

from bench.data.defaults import default_epsilons, headline
from bench.data.sets import DATASETS, Dataset, Split, open_dataset
from bench.data.subset import subset

__all__ = [
    "DATASETS",
    "Dataset",
    "Split",
    "default_epsilons",
    "headline",
    "open_dataset",
    "subset",
]
