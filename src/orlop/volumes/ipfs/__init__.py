"""Content of IPFS as volumes: its names, its blocks, a node that brings them, and the driver."""
