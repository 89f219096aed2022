"""How events reach devices: each file is one way, all of them through the same `Device`."""
