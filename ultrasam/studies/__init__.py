"""Studies of several trainings: which runs there are, starting them, collecting what they gave."""
