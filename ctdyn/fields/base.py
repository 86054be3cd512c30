"""What a field can be: the contracts themselves live beside the other structures that solvers know."""

from ..structure import CDEField, DecayField, ExactCDEField, SDEField, SecondOrderField, Transition, VectorField


__all__ = ["CDEField", "DecayField", "ExactCDEField", "SDEField", "SecondOrderField", "Transition", "VectorField"]
