"""PointMaze: a ball is pushed through a U-shaped corridor."""
