"""Circuits in numbers; what is made of them is tested with `similarity`."""

from circuitry.circuits.circuit_arrays import circuit_arrays
from tests.circuits.test_graph import small_graph


def test_arrays_without_a_site_have_neither_its_nodes_nor_its_edges() -> None:
    # Numbers: conv 0..3, head 4..6.
    circuit = small_graph().circuit(1, any_sign=True)
    arrays = circuit_arrays(circuit)
    assert arrays.nodes.tolist() == [1, 3, 5, 6, 4]
    assert list(zip(arrays.tails.tolist(), arrays.heads.tolist(), strict=True)) == [(1, 5), (3, 6), (1, 4)]
    assert arrays.n_units == 7
    left = circuit_arrays(circuit, ["head"])
    assert (left.nodes.tolist(), left.tails.tolist(), left.n_units) == ([1, 3], [], 7)
