"""How orlop gets onto a machine: what a host's service manager and engines need to find it, and the managed plugin."""
