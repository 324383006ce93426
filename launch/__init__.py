"""What happens between a command line and a composed config; nothing here imports torch."""
