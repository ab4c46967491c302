"""Automations of the Prefect server: runs without a heartbeat, and a webhook call after a failed run."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import cast
from uuid import UUID

from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import CallWebhook, ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from pydantic import SecretStr

SILENCE = timedelta(minutes=10)
"""Time without a heartbeat after which a run counts as dead; longer than a restart of the server takes."""
ENDED = (
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
"""The body of the webhook call: a text, as Slack, Mattermost and others accept it, and the run's address."""


def any_run() -> ResourceSpecification:
    """Returns a filter that every flow run matches."""
    return ResourceSpecification.model_validate({"prefect.resource.id": "prefect.flow-run.*"})


def of_flows(*names: str) -> ResourceSpecification:
    """Returns a filter that runs of these flows match."""
    return ResourceSpecification.model_validate(
        {"prefect.resource.role": "flow", "prefect.resource.name": list(names)}
    )


def silence() -> AutomationCore:
    """Returns the automation that marks runs of a dead machine as Crashed (`server.reconcile`: runs of this one)."""
    return AutomationCore(
        name="Runs without a heartbeat",
        description="Marks a flow run whose heartbeats stopped as Crashed.",
        trigger=EventTrigger(
            match=any_run(),
            for_each={"prefect.resource.id"},
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat", *(f"prefect.flow-run.{state}" for state in ENDED)},
            posture=Posture.Proactive,
            threshold=1,
            within=SILENCE,
        ),
        actions=[
            ChangeFlowRunState(
                name="Crashed", state=StateType.CRASHED, message=f"No heartbeat for {SILENCE}.", force=False
            )
        ],
    )


def failure(url: str) -> AutomationCore:
    """Returns the automation that posts `MESSAGE` to `url` when a run, a sweep or an audit failed or crashed."""
    block = cast("UUID", Webhook(method="POST", url=SecretStr(url)).save("fra-alert", overwrite=True))
    return AutomationCore(
        name="Report failures",
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
    """Puts the automations on the server, in place of those of the same name; the webhook if FRA_ALERT_URL is set."""
    wanted = [silence()]
    if url := os.environ.get("FRA_ALERT_URL"):
        wanted.append(failure(url))
    with get_client(sync_client=True) as client:
        for automation in wanted:
            for found in client.read_automations_by_name(automation.name):
                client.delete_automation(found.id)
            client.create_automation(automation)
