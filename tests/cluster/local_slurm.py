"""A SLURM of its own on the loopback interface: brought up, asked to run one command, and taken down.

``python -m tests.cluster.local_slurm sinfo`` runs any command with that cluster, as root on Debian or Ubuntu with
``apt-get install slurm-wlm munge``. Nothing of the machine's own SLURM is read or changed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

NEEDED = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "scontrol", "runuser")
INSTALL = "apt-get install -y slurm-wlm munge"
SYSTEM_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"  # daemons lie outside the path of many shells


def why_not() -> str | None:
    """Why no cluster can be started here, with the remedy; None if one can."""
    missing = [name for name in NEEDED if shutil.which(name, path=_path()) is None]
    if missing:
        return f"no SLURM to start ({', '.join(missing)} not found): {INSTALL}"
    return None if os.geteuid() == 0 else "starting SLURM's daemons needs root"


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"


class LocalSlurm:
    """One controller and one node on 127.0.0.1, in a temporary folder, gone when the ``with`` block ends.

    Attributes:
        environment: variables for commands that are to use this cluster.
        folder: of the configuration, the state and the logs.

    Args:
        cpus: that the node says it has.
        grace_seconds: after which SLURM kills what does not stop at the end of its time.
    """

    def __init__(self, cpus: int = 2, grace_seconds: int = 20) -> None:
        self.cpus, self.grace_seconds = cpus, grace_seconds
        self.folder = Path()
        self.environment: dict[str, str] = {}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> LocalSlurm:
        # not below pytest's folder: that is another user's to munged, and a socket's path must be short
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if (self.folder / "slurm.conf").exists():
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                self.run("scancel", "--full", "--user=root", check=False, timeout=10)
                self._until(lambda: not self.run("squeue", "--noheader", timeout=10), 15, "jobs to end", strict=False)
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in reversed(self._daemons):
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._daemons.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *command: str, check: bool = True, timeout: float = 30) -> str:
        """Output of a command that talks to this cluster."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}{self.logs()}")
        return done.stdout

    def job(self, number: str) -> dict[str, str]:
        """What the controller knows of a job, as "JobState", "Restarts"...; empty once it has forgotten it."""
        words = self.run("scontrol", "show", "job", "--oneliner", number, check=False).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def logs(self) -> str:
        """The last lines of the daemons, for a failure's message."""
        texts = [f"\n--- {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("log/*.log"))]
        return "".join(texts)

    def _start(self) -> None:
        self.folder.chmod(0o755)
        for name in ("munge", "log", "state", "spool"):
            (self.folder / name).mkdir()
        shutil.chown(self.folder / "munge", "munge", "munge")
        (self.folder / "munge").chmod(0o755)
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        shutil.chown(key, "munge", "munge")
        ports = _free_ports(2)
        (self.folder / "slurm.conf").write_text(self._configuration(*ports))
        self.environment = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _path()}
        for name in [name for name in self.environment if name.startswith("SLURM_") and name != "SLURM_CONF"]:
            del self.environment[name]  # of a job that these tests may themselves be
        munge = self.folder / "munge"
        options = [f"--{name}={munge / name}" for name in ("socket", "pid-file", "log-file", "seed-file")]
        self._daemon("munged", "runuser", "-u", "munge", "--", "munged", "-F", f"--key-file={key}", *options)
        self._until(lambda: (munge / "socket").exists(), 10, "munged")
        self._daemon("slurmctld", "slurmctld", "-D")
        self._daemon("slurmd", "slurmd", "-D", "-N", "localhost")
        self._until(lambda: "idle" in self.run("sinfo", "--noheader", "-o", "%T", check=False), 30, "the node")

    def _daemon(self, name: str, *command: str) -> None:
        with (self.folder / "log" / f"{name}.log").open("wb") as log:
            # close_fds: a lock that this process holds must not live as long as a daemon
            self._daemons.append(
                subprocess.Popen(
                    command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, close_fds=True,
                    start_new_session=True,
                )
            )  # fmt: skip

    def _until(self, condition, seconds: float, what: str, strict: bool = True) -> None:
        end = time.monotonic() + seconds
        while not condition():
            gone = [daemon for daemon in self._daemons if daemon.poll() is not None]
            if strict and (gone or time.monotonic() > end):
                raise RuntimeError(f"waited {seconds} s in vain for {what}{self.logs()}")
            if time.monotonic() > end:
                return
            time.sleep(0.1)

    def _configuration(self, controller_port: int, node_port: int) -> str:
        folder, host = self.folder, socket.gethostname().split(".")[0]
        return f"""\
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
CredType=cred/munge
# a requeued job starts again only once its credential has expired: two minutes, left to itself
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
ReturnToService=2
KillWait={self.grace_seconds}
MinJobAge=3600
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=localhost NodeAddr=127.0.0.1 NodeHostname={host} CPUs={self.cpus} State=UNKNOWN
PartitionName=low Nodes=localhost Default=YES PriorityTier=1 GraceTime=20 MaxTime=INFINITE State=UP
PartitionName=high Nodes=localhost PriorityTier=2 PreemptMode=OFF MaxTime=INFINITE State=UP
"""


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM unwind the ``with`` blocks too: no daemon stays behind."""
    previous = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def main(command: Sequence[str]) -> int:
    """Run ``command`` with a cluster; returns its exit status."""
    if reason := why_not():
        sys.exit(f"error: {reason}")
    with _terminated_as_interrupted(), LocalSlurm() as cluster:
        return subprocess.run(command, env=cluster.environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
