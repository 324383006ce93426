"""One module for each way in which a data set may lie on disk: its reader, and its writer where it can be collected."""
