"""What makes networks fast without changing what they compute: modules and kernels that replace the plain ones."""
