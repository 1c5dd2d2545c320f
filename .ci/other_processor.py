"""Print a type of processor for OPENBLAS_CORETYPE that is not the one of this machine.

Haswell has fewer instructions than today's servers of Intel, and Sandybridge fewer than
all processors with those of Haswell, such as AMD's.
"""

import numpy as np
import scipy.linalg
from threadpoolctl import threadpool_info

assert np.isfinite(scipy.linalg.det(np.eye(2)))  # both libraries are loaded
mine = {one["architecture"] for one in threadpool_info() if "architecture" in one}
print("Sandybridge" if mine & {"Haswell", "Zen"} else "Haswell")
