"""What a field is: the contract itself lives beside the other structures that solvers know."""

from ..structure import VectorField


__all__ = ["VectorField"]
