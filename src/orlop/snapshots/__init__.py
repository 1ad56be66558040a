"""Data in time: folders kept as they were at one moment, in restic's repository format."""
