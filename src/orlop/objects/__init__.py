"""Bytes under a name, wherever they are kept: five verbs, and what a store promises about them."""
