"""Volumes that live in a bucket and follow their containers: one writer at a time, whoever else thinks to be it."""
