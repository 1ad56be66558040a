"""orlop: the storage half of a container engine."""

__version__ = "0.1.0"
