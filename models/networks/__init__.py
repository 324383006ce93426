"""The networks, as plain maths: one network a file."""
