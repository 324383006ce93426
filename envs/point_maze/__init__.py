"""PointMaze: a ball is pushed through a maze, U-shaped, medium or large."""
