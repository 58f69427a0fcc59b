"""Types of the arrays that modules hand to one another, by what their numbers are."""

import numpy as np
import numpy.typing as npt

Items = npt.NDArray[np.uint32]
"""Numbers of items, or of rows, as the files hold them."""
Positions = npt.NDArray[np.intp]
"""Indices into another array, as NumPy takes and gives them."""
Distances = npt.NDArray[np.float32]
"""Angular distances, 0 to 2; infinite where there is no neighbour."""
Features = npt.NDArray[np.float32]
"""One feature (n_dims,) or many (n, n_dims)."""
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
