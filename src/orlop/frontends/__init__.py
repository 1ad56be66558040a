"""Functions over the services, one file a protocol."""
