"""Shipped for tests: contracts that a driver or a foreign plugin can be run against, and machines to run them on."""
