"""The measured constants behind a plan's estimates, each with its unit and how it was measured.

The reference machine has two virtual cores of an AMD EPYC (Zen 4: AVX-512, bfloat16) and 24 GB of
memory. Unless noted, features are those of `make bench` (2048 numbers), with 100 neighbours.
"""

from typing import Final

REFERENCE_CORES: Final = 2

PRODUCT: Final = 93.5
"""GFLOP/s a core: float32 product of 4096 x 2048 and its like, both cores, OpenBLAS."""
PARTITION: Final = 10.0
"""ns a number: numpy's argpartition of rows of 4224 float32 numbers, one core."""
MERGE: Final = 23.4
"""ns a pair of products: keeping the best of a table's scores, one core; 16,000 products."""
RANK: Final = 2.63
"""ns a candidate and dimension: ranking 128 a product in float64, one core; 16,000 products."""
PREPARE: Final = 85e-6
"""s a product: copies found, the mean taken off, one core; 16,000 products."""
INDEX: Final = 0.1e-3
"""s a product: `index` without the table (reading, projection, trees …); 16,000 products."""
INDEX_CATEGORY: Final = 1.06
"""s a category: the principal axes of a category of more than 2048 products."""
TREE_NODES: Final = 3.29
"""Nodes a tree, product and leaf: Annoy's files of 1,000 to 48,000 products, ±2 %."""
STORE_BYTES: Final = 8274 - 8192
"""Bytes a product: Parquet files of the feature store besides the features."""
PHOTOS_BFLOAT16: Final = 17.0
"""Photos/s a core: make bench-extract, a CPU that multiplies bfloat16: 34.1 on two."""
PHOTOS_FLOAT32: Final = 8.8
"""Photos/s a core: make bench-extract, --precision float32: 17.6 on two."""
EXTRACT_BYTES: Final = 3e9
"""Resident set of `extract` with Inception-v3."""
INDEX_BYTES: Final = 0.73e9
"""Anonymous memory of `index` at its peak besides what each product takes."""
PROCESS_BYTES: Final = 29.5e6
"""Bytes a process: make bench: 59 MB for two, proportional set size."""
PROCESS_BYTES_PRODUCT: Final = 1.3
"""Bytes a process and product: make bench-scale: 69 MB for two with 3.8 million products."""
REQUESTS: Final = 24_600
"""Requests/s a core: make bench, limit=12: 49,303 on two that the client shares."""
VECTORS: Final = 520
"""Requests/s a core: make bench, POST of a vector, 31,667 products: 1,048 on two."""
