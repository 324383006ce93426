"""PushT: a disc pushes a T over a table."""
