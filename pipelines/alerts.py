"""Alerts: what must reach a person although nobody watches the terminal. A webhook, and a file in any case."""

import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path

import httpx

log = logging.getLogger(__name__)

WEBHOOK = "SPC_ALERT_WEBHOOK"
"""Environment variable with the address that gets a POST of ``{"text": ..., "title": ..., "time": ...}``. Slack,
Mattermost and Discord (with /slack at the end) understand it."""
FILE = "alerts.jsonl"
_SECONDS = 10.0


def alert(title: str, text: str, state: Path) -> bool:
    """Append the alert to ``state``/alerts.jsonl and post it to the webhook, if one is set.

    Returns:
        whether a webhook took it. That it did not is logged, and never hides what the alert is about.
    """
    entry = {"time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "title": title, "text": f"{title}\n{text}"}
    state.mkdir(parents=True, exist_ok=True)
    with (state / FILE).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(entry) + "\n")
    address = os.environ.get(WEBHOOK)
    if not address:
        log.warning("%s is not set: the alert is only in %s", WEBHOOK, state / FILE)
        return False
    try:
        httpx.post(address, json=entry, timeout=_SECONDS, follow_redirects=False).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:  # the address may hold a token, so it is not logged
        log.error("the alert webhook did not take the alert (%s); it is in %s", type(error).__name__, state / FILE)
        return False
    return True
