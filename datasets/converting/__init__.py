"""Writing a data set that is read in one format in another."""
