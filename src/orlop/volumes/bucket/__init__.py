"""Volumes that live in an object store and work on whichever host uses them: one writer, local speed."""
