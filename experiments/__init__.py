"""Studies: many trainings and evaluations, compared on the same episodes."""
