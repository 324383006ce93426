"""A worker process that plays episodes: ``python -m envs.simulator_worker``, started by ``envs.worker_pool``.

It imports NumPy and the simulator, but not torch: it is ready in half a second and takes 80 MB with PushT.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
from multiprocessing.connection import Connection

from envs.episode_player import CopyTask, EpisodePlayer
from envs.shared_arrays import SharedBuffer
from utils.child_processes import end_with_parent

PARENT_DECIDES = (signal.SIGINT, signal.SIGTERM)
"""Signals that often reach the whole process group, while the parent may want to finish its step first."""


def main(arguments: list[str]) -> None:
    """Receive tasks and answer each with None, a ``Failure`` or copies, until the parent closes the connection or dies.

    Args:
        arguments: Descriptors of connection and buffer, process id of the parent, simulator, image size, and further
            arguments of the simulator, in JSON.
    """
    connection_fd, buffer_fd, parent, location, image_size, options = arguments
    for number in PARENT_DECIDES:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PARENT_DECIDES)  # blocked by the parent until here
    # a closed connection says the same, but only between two tasks, and not while a forked copy of the parent lives
    end_with_parent(int(parent))
    for descriptor in (connection_fd, buffer_fd):
        os.set_inheritable(int(descriptor), False)  # what a simulator starts must not keep them open
    player = EpisodePlayer(location, int(image_size), json.loads(options))
    serve(Connection(int(connection_fd)), SharedBuffer(int(buffer_fd)), player)
    sys.stdout.flush()
    os._exit(0)  # graphics drivers may crash or talk in the interpreter's own shutdown


def serve(connection: Connection, buffer: SharedBuffer, player: EpisodePlayer) -> None:
    """Do tasks until nobody is at the other end."""
    try:
        while True:
            shapes, task, copies = pickle.loads(connection.recv_bytes())
            player.take(copies)
            answer = player.copies() if isinstance(task, CopyTask) else player.run(task, buffer.arrays(shapes))
            connection.send_bytes(pickle.dumps(answer))
    except (EOFError, ConnectionError):
        player.close()


if __name__ == "__main__":
    main(sys.argv[1:])
