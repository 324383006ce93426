"""Planners, their cost, and the controller that runs them against a simulator."""
