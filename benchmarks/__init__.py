"""How fast each part is, as a fraction of what the machine can do."""
