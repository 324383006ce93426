"""The command ``python -m models.checkpoint inspect|convert``, see ``models/checkpoints/command.py``."""

from models.checkpoints.command import main

if __name__ == "__main__":
    main()
