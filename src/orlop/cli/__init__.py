"""Docker's verbs and ours, for a person at a terminal."""
