"""The networks: architectures, engines, inputs and outputs."""
