r"""Every latent-variable model on intensive care stays (PhysioNet 2012): hours filled, and the second day forecast.

python datasets/physionet2012.py --root RAW --sets a --out physionet2012.parquet
python recipes/latent_models_physionet.py physionet2012.parquet --quick --seed 0
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from gaussian_sites_physionet import DAY, QUICK_STAYS, TASKS

from ctdyn import Forecaster, compare
from ctdyn.data import AnyOf, SeriesSet, Standardize, read
from ctdyn.integrate import ConstantStep
from ctdyn.likelihoods import HeteroscedasticScale, StudentT
from ctdyn.linear import OU
from ctdyn.models import ELBO, LS4, Anneal, KalmanVAE, KoopmanVAE, LatentODE, LatentSDE, LatentVAE, MarkovianGPVAE


#: How fast the processes of the Markovian GP-VAE forget, per day: from a level to what comes and goes within an hour.
RATES = torch.logspace(-1.0, 1.4, 16)
WIDTH = 32


def shared(series: SeriesSet, size: int) -> dict[str, Any]:
    """What all models have in common: Student's t, of a scale that depends on the latent state, and the bound."""
    likelihood = StudentT(size, len(series.channels), hidden=(32,), scale=HeteroscedasticScale(hidden=(32,)))
    return {"channels": series.channels, "likelihood": likelihood, "objective": ELBO(beta=Anneal(100))}


def latent_ode(series: SeriesSet) -> LatentVAE:
    """Two thirds of an hour per step."""
    return LatentODE(**shared(series, 16), latent_size=16, hidden=(WIDTH,), controller=ConstantStep(0.1))


def latent_sde(series: SeriesSet) -> LatentVAE:
    """The same field with noise."""
    return LatentSDE(**shared(series, 16), latent_size=16, hidden=(WIDTH,), dt=0.1)


def ls4(series: SeriesSet) -> LatentVAE:
    """A latent state per row."""
    return LS4(**shared(series, 8 + WIDTH), latent_size=8, width=WIDTH, dt=0.05)


def markovian_gp_vae(series: SeriesSet) -> LatentVAE:
    """Rough processes, and many memories: vital signs are not smooth."""
    rates = RATES.unsqueeze(-1)
    dynamics = OU(rates, (2.0 * rates).sqrt())
    return MarkovianGPVAE(**shared(series, len(RATES)), latent_size=len(RATES), dynamics=dynamics)


def kalman_vae(series: SeriesSet) -> LatentVAE:
    """Dynamics that are learned whole."""
    return KalmanVAE(**shared(series, 8), latent_size=8, state_size=8)


def koopman_vae(series: SeriesSet) -> LatentVAE:
    """Four damped oscillations."""
    return KoopmanVAE(**shared(series, 8), pairs=4)


MODELS: Mapping[str, Callable[[SeriesSet], LatentVAE]] = {
    "latent ODE": latent_ode,
    "latent SDE": latent_sde,
    "LS4": ls4,
    "Markovian GP-VAE": markovian_gp_vae,
    "Kalman VAE": kalman_vae,
    "Koopman VAE": koopman_vae,
}


def main() -> None:
    """Fit, compare, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="the file that datasets/physionet2012.py wrote")
    parser.add_argument("--seed", type=int, default=0, help="of the split, the hidden rows and the fits")
    parser.add_argument("--steps", type=int, default=400, help="training steps of each model, at most")
    parser.add_argument("--models", choices=list(MODELS), nargs="+", default=list(MODELS), help="default: all")
    parser.add_argument("--quick", action="store_true", help=f"the first {QUICK_STAYS} stays")
    parser.add_argument("--validate", action="store_true", help="score the validation stays instead")
    options = parser.parse_args()

    series = read(options.data)
    if options.quick:
        series = series.select(sorted(series.ids)[:QUICK_STAYS])
    train, validation, test = series.split(0.64, 0.16, 0.2, seed=options.seed)
    fitted: dict[str, Forecaster] = {}
    seconds: dict[str, float] = {}
    for name in options.models:
        torch.manual_seed(options.seed)
        scaler = Standardize(center="context", origin="given", time_scale=DAY)
        model = Forecaster(MODELS[name](series), scaler=scaler, windows=AnyOf(*TASKS.values()), seed=options.seed)
        began = time.perf_counter()
        model.fit(train, validation, max_steps=options.steps, batch_size=32, lr=5e-3, weight_decay=0.1)
        seconds[name] = round(time.perf_counter() - began, 1)
        fitted[name] = model
    asked = validation if options.validate else test
    result = {}
    for name, task in TASKS.items():
        table = compare(fitted, train, asked, task=task, seed=options.seed)
        print(name)
        print(table.to_string(float_format=lambda number: f"{number:.4g}"), flush=True)
        result[name] = {str(k): {str(c): round(float(v), 4) for c, v in r.items()} for k, r in table.iterrows()}
    print(json.dumps({"seed": options.seed, "stays": len(asked), "seconds": seconds, "tasks": result}))


if __name__ == "__main__":
    main()
