"""Continuous-time latent dynamics for irregularly sampled series."""
