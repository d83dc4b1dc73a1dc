"""Telling people: a webhook, and the estate's topic."""

from __future__ import annotations

import os
from collections.abc import Mapping

import boto3
import httpx
from botocore.exceptions import BotoCoreError, ClientError

from app.contract import Env

TOPIC_VARIABLE = "ALERT_TOPIC_ARN"


def notify(subject: str, message: str, *, environment: Mapping[str, str] | None = None) -> list[str]:
    """Send ``message`` to every address that the environment names; returns what became of each.

    A notification that fails must not stop an emergency: the answer says so, and the command goes on.
    """
    variables = os.environ if environment is None else environment
    results = []
    if webhook := variables.get(Env.NOTIFICATION_WEBHOOK):
        results.append(_post(webhook, subject, message))
    if topic := variables.get(TOPIC_VARIABLE):
        results.append(_publish(topic, subject, message))
    return results or [f"nobody was told: neither {Env.NOTIFICATION_WEBHOOK} nor {TOPIC_VARIABLE} is set"]


def _post(webhook: str, subject: str, message: str) -> str:
    # The address itself is a secret: it is never printed.
    try:
        answer = httpx.post(webhook, json={"subject": subject, "text": message}, timeout=10)
    except httpx.HTTPError as error:
        return f"webhook: not delivered ({type(error).__name__})"
    return "webhook: delivered" if answer.is_success else f"webhook: refused with {answer.status_code}"


def _publish(topic: str, subject: str, message: str) -> str:
    try:
        region = topic.split(":")[3]
        boto3.client("sns", region_name=region).publish(TopicArn=topic, Subject=subject[:100], Message=message)
    except (BotoCoreError, ClientError, IndexError) as error:
        return f"topic: not delivered ({type(error).__name__})"
    return "topic: delivered"
