"""Change activations and measure: patching, faithfulness, transfer, circuits with a known answer."""
