"""Shape aliases: the axis names that every annotation and every error message of the library uses.

They are checked (jaxtyping with beartype) under pytest only; at run time they cost nothing.
"""

from jaxtyping import Bool, Float, Inexact
from torch import Tensor


__all__ = ["Inputs", "Mask", "State", "States", "Time", "Times", "Values"]

Time = Float[Tensor, "*batch"]
Times = Float[Tensor, "*batch time"]
State = Inexact[Tensor, "*batch state"]
States = Inexact[Tensor, "*batch time state"]
Inputs = Float[Tensor, "*batch input"]
Values = Float[Tensor, "*batch time channel"]
Mask = Bool[Tensor, "*batch time channel"]
