"""Names of the suite."""

from .suite import *
from .suite import __all__ as __all__
