"""Simulated data end to end: from a source to a fitted generator, to records, to what they are worth."""
