"""Wirings are those of ncps for the same seed, and values: reading one changes nothing."""

import dataclasses
import itertools

import numpy as np
import pytest

from ctdyn import wirings
from ctdyn._config import from_config, to_config
from ctdyn.wirings import NCP, AutoNCP, FullyConnected, Random, Wiring


# Written by ncps 1.0.1: one word per row, first between neurons, then from inputs.
KNOWN = [
    (FullyConnected(4, 2, self_connections=False), "0+++ +0++ ++0+ +++0", "+++- +++-"),
    (FullyConnected(3, seed=5), "++- +++ +-+", "--+ ++-"),
    (Random(5, sparsity=0.5), "00000 000++ 0+-+0 ++00+ +0-++", "+000+ +-++0 +00-0"),
    (
        NCP(4, 3, 2, 2, 1, 4, 2),
        "000000000 000000000 +00000000 --+-00000 0+-+00000 000+00000 00-000000 0000+0000 000+00000",
        "00000-00- 000000++0 000000--0",
    ),
    (
        AutoNCP(9, 2),
        "000000000 000000000 -00+00000 ++-000000 00-000000 000+00000 000+00000 00+000000 00-000000",
        "0000-00-- 0000+0-00 00000+-00",
    ),
    (AutoNCP(7, 2, 0.9, 3), "0000000 0000000 0-00000 +00+000 000-000 00+0000 00-0000", "0000++-"),
]
CLASSES = {kind.__name__: kind for kind in (NCP, AutoNCP, FullyConnected, Random)}


def matrix(words: str) -> np.ndarray:
    return np.array([["-0+".index(letter) - 1 for letter in word] for word in words.split()])


def test_every_exported_wiring_is_checked():
    kinds = (getattr(wirings, name) for name in wirings.__all__)
    assert {k.__name__ for k in kinds if issubclass(k, Wiring)} - {"Wiring"} == set(CLASSES)


@pytest.mark.parametrize(("wiring", "recurrent", "sensory"), KNOWN, ids=lambda x: str(x)[:20])
def test_synapses_are_those_of_ncps(wiring, recurrent, sensory):
    circuit = wiring.connect(len(sensory.split()))
    np.testing.assert_array_equal(circuit.recurrent, matrix(recurrent))
    np.testing.assert_array_equal(circuit.sensory, matrix(sensory))


def test_synapses_are_those_of_ncps_for_many_seeds():
    theirs = pytest.importorskip("ncps.wirings")
    pairs = []
    for units, seed in itertools.product((5, 16, 33), (0, 22222)):
        pairs.append((FullyConnected(units, None, seed), theirs.FullyConnected(units, None, seed)))
        for sparsity in (0.1, 0.5, 0.9):
            pairs.append((Random(units, 2, sparsity, seed), theirs.Random(units, 2, sparsity, seed)))
            pairs.append((AutoNCP(units, 2, sparsity, seed), theirs.AutoNCP(units, 2, sparsity, seed)))
    for (ours, other), inputs in zip(pairs, itertools.cycle((1, 4, 17)), strict=False):
        other.build(inputs)
        circuit = ours.connect(inputs)
        np.testing.assert_array_equal(circuit.recurrent, other.adjacency_matrix)
        np.testing.assert_array_equal(circuit.sensory, other.sensory_adjacency_matrix)
        assert [list(layer) for layer in ours.layers] == [
            list(other.get_neurons_of_layer(i)) for i in range(other.num_layers)
        ]


def test_using_a_wiring_again_leaves_its_synapses_as_they_are():
    """In ncps the second model that is built from a wiring adds synapses to both."""
    for wiring, _, sensory in KNOWN:
        inputs = len(sensory.split())
        first = wiring.connect(inputs)
        wiring.connect(inputs + 3)
        again = wiring.connect(inputs)
        assert (first.num_synapses, first.num_sensory_synapses) == (again.num_synapses, again.num_sensory_synapses)
        np.testing.assert_array_equal(first.recurrent, again.recurrent)


def test_that_upstream_densifies_a_wiring_and_loses_its_configuration():
    theirs = pytest.importorskip("ncps.wirings")
    wiring = theirs.AutoNCP(16, 4)
    wiring.build(4)
    once = wiring.synapse_count
    wiring.build(4)
    assert wiring.synapse_count > once
    ncp = theirs.NCP(4, 3, 2, 2, 1, 4, 2)
    with pytest.raises(TypeError):
        theirs.NCP.from_config(ncp.get_config())


@pytest.mark.parametrize("wiring", [known[0] for known in KNOWN], ids=lambda w: str(w)[:20])
def test_configurations_come_back(wiring):
    again = from_config(to_config(wiring), CLASSES)
    assert again == wiring
    np.testing.assert_array_equal(again.connect(3).sensory, wiring.connect(3).sensory)
    with pytest.raises(dataclasses.FrozenInstanceError):
        wiring.seed = 3


@pytest.mark.parametrize("wiring", [known[0] for known in KNOWN], ids=lambda w: str(w)[:20])
def test_layers_hold_every_neuron_once_and_motors_come_first(wiring):
    neurons = [neuron for layer in wiring.layers for neuron in layer]
    assert sorted(neurons) == list(range(wiring.units))
    if len(wiring.layers) == 3:
        assert wiring.layers[-1] == tuple(range(wiring.motor_size))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: AutoNCP(8, 6), "output_size must be less than units - 2.*6 of 8"),
        (lambda: AutoNCP(8, 2, 0.0), "sparsity must be 0.1 to 1; got 0.0"),
        (lambda: Random(8, sparsity=1.0), "less than 1; got 1.0"),
        (lambda: FullyConnected(4, 5), "output_size must be at most 4, the number of units; got 5"),
        (lambda: FullyConnected(0), "units must be at least 1"),
        (lambda: NCP(4, 3, 2, 5, 1, 4, 2), "sensory_fanout must be at most 4, the number of inter neurons; got 5"),
        (lambda: NCP(4, 3, 2, 2, 4, 4, 2), "inter_fanout must be at most 3, the number of command neurons"),
        (lambda: NCP(4, 3, 2, 2, 1, 4, 4), "motor_fanin must be at most 3"),
        (lambda: NCP(4, 3, 2, 2, 1, -1, 2), "recurrent_command_synapses must be at least 0"),
        (lambda: FullyConnected(3).connect(0), "input_size must be at least 1"),
    ],
)
def test_wirings_that_cannot_be_built_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
    with pytest.raises(TypeError, match="units must be a whole number"):
        FullyConnected(True)
