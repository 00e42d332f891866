"""Simulated data: models of coded records, fitted to privately released pair counts; all of it is post-processing."""
