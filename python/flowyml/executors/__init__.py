"""Where steps run: the contract and its implementations."""
