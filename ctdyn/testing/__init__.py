"""Contracts of the parts of the library as executable checks: a new part is done when its check passes."""

from .controlled import check_cde_field
from .labelling import check_labels
from .latent import check_cell, check_encoder, check_likelihood, check_process, example_window
from .layers import check_layer
from .linear import check_linear
from .modelling import check_model
from .solving import check_adjoint, check_engine, check_field, check_path, check_solver
from .stochastic import check_brownian, check_sde_field, check_sde_solver


__all__ = [
    "check_adjoint",
    "check_brownian",
    "check_cde_field",
    "check_cell",
    "check_encoder",
    "check_engine",
    "check_field",
    "check_labels",
    "check_layer",
    "check_likelihood",
    "check_linear",
    "check_model",
    "check_path",
    "check_process",
    "check_sde_field",
    "check_sde_solver",
    "check_solver",
    "example_window",
]
