"""Coordinator and sites as parts of a job of NVIDIA FLARE 2.9: the questions and answers of `engines.local`.

The job (`mil.federation.federation_job`) holds names and options; server and sites build these classes from the `mil`
that they have installed. Questions travel as auxiliary messages, which FLARE delivers at once and over TLS; its tasks
are polled for. What FLARE does, and what is done about it here:

- A job may start before all sites are there, and leave the late ones out: the coordinator compares names.
- FLARE's filters see tasks, not these messages: the site's gate decides what may leave (`mil.federation.privacy`).
- A failed job may look finished: the coordinator panics with its reason, and a run without `report.json` is none.
- A dead site does not come back into a running job: the same job is submitted again, and goes on after its last epoch.
"""

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nvflare.apis.controller_spec import Task
from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal

from mil.errors import MilError
from mil.federation.coordinator import Engine, Reply
from mil.federation.federated_run import FederatedRun
from mil.federation.federation_job import JOB, FederationJob
from mil.federation.job_site import COORDINATOR, SITE_FILE, JobFolder, JobSite, SiteFile, unpacked
from mil.federation.left_out import WithoutSite, with_left_out
from mil.federation.messages import FederationError, Message

logger = logging.getLogger(__name__)
TOPIC, CONTENT = "mil.question", "content"
READY = "mil_ready"
STARTING_SECONDS = 600
"""How long sites may take to start their process."""
RESULTS = "mil"
"""Folder of the coordinator's run among the results that an administrator downloads."""


class FlareEngine:
    """Reaches the sites of a job from its server."""

    def __init__(self, context: FLContext, sites: Sequence[str], abort: Signal) -> None:
        """Create the engine.

        Args:
            context: FLARE's, of the job.
            sites: Names of all sites of the federation, whether they take part in the job or not.
            abort: Whether the job was aborted.
        """
        self.context, self._sites, self.abort = context, sorted(sites), abort

    @property
    def sites(self) -> list[str]:
        """Names of the sites."""
        return list(self._sites)

    def ask(self, question: Message, sites: Sequence[str], seconds: float) -> Iterator[Reply]:
        """Yield the answers of the sites.

        Raises:
            FederationError: The job was aborted.
        """
        engine = self.context.get_engine()
        present = [client.name for client in engine.get_clients()]
        request = Shareable()
        request[CONTENT] = question.to_bytes()
        targets = [site for site in sites if site in present]
        replies: Mapping[str, Shareable] = {}
        if targets:  # no target would be all of them
            replies = engine.send_aux_request(targets, TOPIC, request, seconds, self.context) or {}
        if self.abort.triggered:
            raise FederationError("the job was aborted; submitted again, it goes on after its last epoch")
        for site in sites:
            if site not in present:
                yield site, FederationError(f"site {site}: takes no part in the job")
            elif site in replies:
                yield site, _content(site, replies[site])


def _content(site: str, reply: Shareable) -> Message | FederationError:
    """Return the answer in a reply, or why there is none."""
    code = reply.get_return_code()
    if code != ReturnCode.OK:
        return FederationError(f"site {site}: no answer ({code})")
    return unpacked(bytes(reply[CONTENT]))


class FlareCoordinator(Controller):  # type: ignore[misc, unused-ignore]
    """The coordinator, in the server's process of the job."""

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Do nothing: all is done in `control_flow`."""

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Do nothing: the folder is let go at the end of `control_flow`."""

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Train over the sites and write the run folder; an error ends the job as failed, with its reason."""
        try:
            run = self._run(abort_signal, fl_ctx)
        except (MilError, OSError) as error:
            logger.error("%s", error)
            self.system_panic(str(error), fl_ctx)
            return
        logger.info("the federation is finished: %s", run)

    def _run(self, abort: Signal, context: FLContext) -> Path:
        """Return the run folder of the finished federation.

        Raises:
            MilError: Sites that do not fit together, or too few.
        """
        workspace, job_id = context.get_engine().get_workspace(), context.get_job_id()
        job = FederationJob.read(Path(workspace.get_app_config_dir(job_id)) / JOB)
        kit = Path(workspace.get_root_dir())
        file = SiteFile.read(kit / "local" / SITE_FILE, COORDINATOR)
        folder = JobFolder(file, job, COORDINATOR, kit)
        try:
            self._wait_for_sites(job, abort, context)
            engine = FlareEngine(context, job.sites, abort)
            section = FederatedRun(job.run_config, job.options, engine, None, folder.path).run()
            if job.options.leave_one_site_out:

                def engine_of(test: str, sites: Sequence[str]) -> Engine:
                    return WithoutSite(FlareEngine(context, sites, abort), test)

                with_left_out(section, job.run_config, job.options, job.sites, engine_of, None, folder.path)
            results = Path(workspace.get_run_dir(job_id)) / RESULTS
            ignored = shutil.ignore_patterns("state", "job", ".*")
            shutil.copytree(folder.path, results, ignore=ignored, dirs_exist_ok=True)
            return folder.path
        finally:
            folder.close()

    def _wait_for_sites(self, job: FederationJob, abort: Signal, context: FLContext) -> None:
        """Wait until the processes of the sites have started.

        Raises:
            FederationError: Sites take no part in the job, by name, and a quorum does not make up for it.
        """
        present = [client.name for client in context.get_engine().get_clients()]
        least = len(job.sites) if job.options.quorum is None else job.options.quorum
        if absent := sorted(set(job.sites) - set(present)):
            sentence = f"site {', '.join(absent)}: takes no part in the job"
            if len(job.sites) - len(absent) < least:
                raise FederationError(f"{sentence}, expected {least} of {len(job.sites)} sites")
            logger.warning("%s", sentence)
        task = Task(name=READY, data=Shareable(), timeout=STARTING_SECONDS)
        self.broadcast_and_wait(task, context, targets=present, min_responses=len(present), abort_signal=abort)

    def process_result_of_unknown_task(
        self, client: Any, task_name: str, client_task_id: str, result: Shareable, fl_ctx: FLContext
    ) -> None:
        """Ignore what answers to no task of this coordinator."""


class FlareSite(Executor):  # type: ignore[misc, unused-ignore]
    """A site, in its own process of the job."""

    def __init__(self) -> None:
        """Create a site that is made from its files when it is first asked."""
        super().__init__()
        self.site: JobSite | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Take questions from the start of a run to its end."""
        if event_type == EventType.START_RUN:
            engine, job_id = fl_ctx.get_engine(), fl_ctx.get_job_id()
            workspace = engine.get_workspace()
            try:
                job = FederationJob.read(Path(workspace.get_app_config_dir(job_id)) / JOB)
            except MilError as error:
                self.system_panic(str(error), fl_ctx)
                return
            custom = Path(workspace.get_app_custom_dir(job_id))
            self.site = JobSite(job, fl_ctx.get_identity_name(), Path(workspace.get_root_dir()), custom)
            engine.register_aux_message_handler(TOPIC, self._answer)
        elif event_type == EventType.END_RUN and self.site is not None:
            self.site.close()

    def _answer(self, topic: str, request: Shareable, fl_ctx: FLContext) -> Shareable:
        """Return the answer to a question."""
        if self.site is None:
            return make_reply(ReturnCode.EXECUTION_EXCEPTION)
        reply = make_reply(ReturnCode.OK)
        reply[CONTENT] = self.site.answer(bytes(request[CONTENT]))
        return reply

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Say that the process has started."""
        return make_reply(ReturnCode.OK if task_name == READY else ReturnCode.TASK_UNKNOWN)
