"""Ways to spoil the files of a data set; each returns what does it to a folder."""

import torch


def load(path):
    return torch.load(path, weights_only=True)


def change(name, edit):
    def spoil(folder):
        torch.save(edit(load(folder / name).clone()), folder / name)

    return spoil


def put(value, *where):
    """The ``edit`` of ``change`` that puts a value at a place."""

    def edit(table):
        table[where] = value
        return table

    return edit


def truncate(name, keep):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:keep])
