"""A network of NVIDIA FLARE on this machine: provisioned certificates, a server and sites as processes of their own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ADMIN = "admin@consortium.org"
PROJECT = """api_version: 3
name: consortium
participants:
  - {{name: localhost, type: server, org: lead, fed_learn_port: {port}, admin_port: {admin_port}}}
{sites}
  - {{name: {admin}, type: admin, org: lead, role: project_admin}}
builders:
  - {{path: nvflare.lighter.impl.workspace.WorkspaceBuilder}}
  - {{path: nvflare.lighter.impl.static_file.StaticFileBuilder, args: {{config_folder: config, scheme: grpc}}}}
  - {{path: nvflare.lighter.impl.cert.CertBuilder}}
  - {{path: nvflare.lighter.impl.signature.SignatureBuilder}}
"""


def environment() -> dict[str, str]:
    """Return the environment of FLARE's processes: the interpreter of the tests is the first python3."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    here = f"{Path(__file__).parents[2]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    return {**os.environ, "PATH": path, "PYTHONPATH": here, "OMP_NUM_THREADS": "1"}


def simulate(job: Path, workspace: Path, sites: int, seconds: float) -> str:
    """Run a job in FLARE's simulator, and return what it printed."""
    words = ["-m", "nvflare.private.fed.app.simulator.simulator", str(job), "-w", str(workspace), "-t", str(sites)]
    done = subprocess.run(
        [sys.executable, *words], env=environment(), capture_output=True, text=True, timeout=seconds, check=False
    )
    return done.stdout + done.stderr


def wait_for(condition: Callable[[], object], seconds: float, what: str, interval: float = 0.1) -> None:
    """Wait until something is true, which is looked at every `interval` seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(interval)


class Network:
    """A server and sites, each with a startup kit."""

    def __init__(self, folder: Path, sites: Sequence[str]) -> None:
        """Provision the kits."""
        folder.mkdir(parents=True)
        lines = "\n".join(f"  - {{name: {site}, type: client, org: hospital}}" for site in sites)
        port, admin_port = _free_port(), _free_port()
        (folder / "project.yml").write_text(
            PROJECT.format(port=port, admin_port=admin_port, sites=lines, admin=ADMIN), encoding="utf-8"
        )
        nvflare = str(Path(sys.executable).parent / "nvflare")
        words = [nvflare, "provision", "-p", str(folder / "project.yml"), "-w", str(folder / "kits")]
        subprocess.run(words, env=environment(), check=True, capture_output=True)
        self.folder, self.kits = folder, folder / "kits" / "consortium" / "prod_00"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def kit(self, name: str) -> Path:
        """Return the startup kit of a participant."""
        return self.kits / name

    def keep_storage_here(self) -> None:
        """Let the server keep its jobs in the folder of the network, not in one that all users share."""
        path = self.kit("localhost") / "local" / "resources.json"
        text = path.read_text().replace("/tmp/nvflare", str(self.folder / "storage"))
        path.write_text(text)

    def start(self, *names: str) -> None:
        """Start participants."""
        for name in names:
            log = (self.folder / f"{name}.log").open("ab")
            words = ["bash", str(self.kit(name) / "startup" / "sub_start.sh"), "--once"]
            self.processes[name] = subprocess.Popen(
                words, env=environment(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def kill(self, name: str) -> None:
        """Kill all processes of a participant, as a power failure does."""
        import psutil

        process = self.processes.pop(name)
        if process.poll() is not None:
            return
        everyone = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for each in everyone:
            each.send_signal(signal.SIGKILL)
        process.wait()
        psutil.wait_procs(everyone, timeout=20)
        for lock in ("pid.fl", "daemon_pid.fl"):
            (self.kit(name) / lock).unlink(missing_ok=True)

    def stop(self) -> None:
        """Kill everything that was started."""
        for name in list(self.processes):
            self.kill(name)

    @contextmanager
    def session(self) -> Iterator[Any]:
        """Open a session of the administrator."""
        from nvflare.fuel.flare_api.flare_api import new_secure_session

        end = time.monotonic() + 120
        while True:
            try:
                session = new_secure_session(ADMIN, str(self.kit(ADMIN)), timeout=10)
                break
            except Exception:
                if time.monotonic() > end:
                    raise
        try:
            yield session
        finally:
            session.close()

    def submit(self, job: Path) -> str:
        """Submit a job and return its id."""
        with self.session() as session:
            return str(session.submit_job(str(job)))

    def status(self, job_id: str) -> str:
        """Return the status of a job; asked again where a busy server is late."""
        while True:
            try:
                with self.session() as session:
                    return str(session.get_job_meta(job_id)["status"])
            except Exception as error:
                if "connect" not in str(error).lower():
                    raise

    def wait_for_sites(self, sites: Sequence[str], seconds: float = 180) -> None:
        """Wait until sites are connected."""
        with self.session() as session:

            def connected() -> bool:
                return {info.name for info in session.get_system_info().client_info} >= set(sites)

            wait_for(connected, seconds, f"sites {sites}", 1)

    def finish(self, job_id: str, seconds: float) -> str:
        """Wait until a job has ended, and return its status."""
        wait_for(lambda: self.status(job_id).startswith("FINISHED"), seconds, f"the end of job {job_id}", 3)
        return self.status(job_id)

    def wait_for_change(self, job_id: str, path: Path, seconds: float) -> None:
        """Wait until a running job writes a file anew."""
        before = path.stat().st_mtime_ns if path.exists() else None
        end = time.monotonic() + seconds
        while not path.exists() or path.stat().st_mtime_ns == before:
            assert time.monotonic() < end, f"{path.name}: not within {seconds} s"
            if int(end - time.monotonic()) % 10 == 0:
                status = self.status(job_id)
                assert not status.startswith("FINISHED"), status
            time.sleep(0.1)

    def download(self, job_id: str) -> Path:
        """Return the folder with what an administrator downloads of a job."""
        with self.session() as session:
            return Path(session.download_job_result(job_id))


def foreign_job(job: Path, marker: Path) -> None:
    """Let a job bring code that writes a file when it is imported."""
    custom = job / "app" / "custom"
    custom.mkdir()
    (custom / "surprise.py").write_text(
        f"from pathlib import Path\nPath({str(marker)!r}).touch()\nclass Surprise: ...\n"
    )
    path = job / "app" / "config" / "config_fed_client.json"
    config = json.loads(path.read_text())
    config["components"] = [{"id": "surprise", "path": "surprise.Surprise", "args": {}}]
    path.write_text(json.dumps(config))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])
