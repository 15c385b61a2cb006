"""The reference every numerical test compares with: the network in float64 NumPy."""
