"""The loops of an earlier release, written anew in the plainest way: what the fast ones are compared with."""
