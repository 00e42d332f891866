"""The aggregator: Flower ServerApp, round loop, channels; it merges without torch or PennyLane."""
