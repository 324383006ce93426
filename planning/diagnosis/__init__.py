"""Why an evaluation failed: what its plans promised, what came of them, and what would have been better."""
