"""The networks, the world model they make up, and the files they are kept in."""
