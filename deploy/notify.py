"""Webhook notification for failed and crashed runs: python deploy/notify.py URL

Creates a Prefect block and an automation on the server that PREFECT_API_URL names. Run again with
another address, it replaces both.
"""

import sys

from prefect.automations import Automation
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import EventTrigger, Posture

NAME = "finetune-failures"


def main(url: str) -> None:
    """Create the block, and the automation that uses it."""
    block = CustomWebhookNotificationBlock(
        name=NAME, url=url, json_data={"text": "{{subject}}: {{body}}"}
    )
    document = block.save(NAME, overwrite=True)
    with get_client(sync_client=True) as client:
        for old in client.read_automations_by_name(NAME):
            client.delete_automation(old.id)
    Automation(
        name=NAME,
        trigger=EventTrigger(
            expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related={"prefect.resource.role": "flow", "prefect.resource.name": "finetune"},
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[
            SendNotification(
                block_document_id=document,
                subject="finetune {{ flow_run.state.name }}",
                body="{{ flow_run.name }}: {{ flow_run.state.message }} {{ flow_run|ui_url }}",
            )
        ],
    ).create()
    print(f"failures and crashes of finetune are posted to {url}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python deploy/notify.py URL")
    main(sys.argv[1])
