"""The reference every numerical test is held against: the network in float64 NumPy."""
