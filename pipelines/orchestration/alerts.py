"""Automations of the Prefect server: runs that stopped to answer, and a message to somebody where a run failed."""

from __future__ import annotations

import contextlib
import os
from datetime import timedelta

from prefect.automations import Automation
from prefect.blocks.webhook import Webhook
from prefect.client.schemas.objects import StateType
from prefect.events.actions import CallWebhook, ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from pydantic import SecretStr

SILENCE = timedelta(minutes=10)
"""A run that gives no sign of life for so long is taken for dead. Long enough for a server that starts again."""
OVER = (
    "Completed",
    "Failed",
    "Cancelled",
    "Crashed",
    "TimedOut",
    "Scheduled",
    "AwaitingRetry",
    "Late",
    "Paused",
)

MESSAGE = (
    '{"text": {{ (flow.name ~ " " ~ flow_run.name ~ ": " ~ flow_run.state.name ~ ": "'
    " ~ flow_run.state.message) | tojson }},"
    ' "url": {{ flow_run | ui_url | tojson }}}'
)
"""What the webhook gets: a text, as Slack, Mattermost and others take it, and where to look."""


def any_run() -> ResourceSpecification:
    return ResourceSpecification.model_validate({"prefect.resource.id": "prefect.flow-run.*"})


def of_flows(*names: str) -> ResourceSpecification:
    return ResourceSpecification.model_validate(
        {"prefect.resource.role": "flow", "prefect.resource.name": list(names)}
    )


def silence() -> Automation:
    """Crashes runs whose machine is gone; those of this machine are found much sooner (`server.reconcile`)."""
    return Automation(
        name="Runs that went silent",
        description="A flow run that sent heartbeats and sends none any more is marked Crashed.",
        trigger=EventTrigger(
            match=any_run(),
            for_each={"prefect.resource.id"},
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat", *(f"prefect.flow-run.{state}" for state in OVER)},
            posture=Posture.Proactive,
            threshold=1,
            within=SILENCE,
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=f"No heartbeat for {SILENCE}.")],
    )


def failure(url: str) -> Automation:
    """Calls `url` with `MESSAGE` whenever a run of the pipeline, a sweep or an audit failed or crashed."""
    block = Webhook(method="POST", url=SecretStr(url)).save("fra-alert", overwrite=True)
    return Automation(
        name="Tell about failures",
        description="Posts to FRA_ALERT_URL.",
        trigger=EventTrigger(
            match=any_run(),
            match_related=of_flows("run", "sweep", "audit"),
            expect={f"prefect.flow-run.{state}" for state in ("Failed", "Crashed", "TimedOut")},
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[CallWebhook(block_document_id=block, payload=MESSAGE)],
    )


def install() -> None:
    """Puts the automations on the server, in place of those of the same name; the message if FRA_ALERT_URL is set."""
    wanted = [silence()]
    if url := os.environ.get("FRA_ALERT_URL"):
        wanted.append(failure(url))
    for automation in wanted:
        with contextlib.suppress(ValueError, ObjectNotFound):
            Automation.read(name=automation.name).delete()
        automation.create()
