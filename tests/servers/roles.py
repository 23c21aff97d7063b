"""Where temporary keys come from: ECS instance metadata, STS and a credentials address, on one local server."""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from tests.servers.oss_signature import AccessKey
from tests.servers.scripted import Exchange, script
from tests.servers.wire import Server, running

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.servers.scripted import Handler

ROLE = "robot"
_ROLES = "/latest/meta-data/ram/security-credentials/"
_TOKEN = "metadata-token"


class RoleServer(Server):
    """Gives a new key each time; tests assign ``lifetime`` and ``token_wanted``, and look into ``issued``."""

    def __init__(self, faults: Mapping[int, Handler] | None = None) -> None:
        """Bind; ``faults`` are those of :func:`tests.servers.scripted.script`."""
        super().__init__(script(faults or {}, otherwise=self._answer))
        self.lifetime = timedelta(hours=1)
        self.token_wanted = True  # whether metadata is given to those with a token only
        self.secret, self.token = "role-secret", "role-token/+="  # what keys are named, with a number behind
        self.issued: list[AccessKey] = []

    def form(self, number: int = -1) -> dict[str, str]:
        """Return the form of a request to STS."""
        return {name: values[0] for name, values in parse_qs(self.log[number].body.decode()).items()}

    def _answer(self, exchange: Exchange) -> None:
        request = exchange.request
        path = request.target.partition("?")[0]
        if request.method == "PUT" and path == "/latest/api/token":
            assert request.headers["x-aliyun-ecs-metadata-token-ttl-seconds"] == "21600"
            exchange.reply(200, {}, _TOKEN.encode())
        elif path.startswith(_ROLES):
            if self.token_wanted and request.headers.get("x-aliyun-ecs-metadata-token") != _TOKEN:
                exchange.reply(403, {}, b"Forbidden")
            elif path == _ROLES:
                exchange.reply(200, {}, ROLE.encode())
            elif path == _ROLES + ROLE:
                self._give(exchange, self._issue())
            else:
                exchange.reply(404, {}, b"Not Found")
        elif request.method == "POST" and path == "/":
            self._give(exchange, {"RequestId": "1", "Credentials": self._issue()})
        elif path == "/credentials":
            self._give(exchange, self._issue())
        else:
            exchange.reply(404)

    def _issue(self) -> dict[str, str]:
        number, until = len(self.issued) + 1, datetime.now(UTC) + self.lifetime
        key = AccessKey(f"STS.{number}", f"{self.secret}{number}", f"{self.token}{number}", until=until)
        self.issued.append(key)
        return {
            "Code": "Success",
            "AccessKeyId": key.id,
            "AccessKeySecret": key.secret,
            "SecurityToken": key.token or "",
            "Expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    def _give(self, exchange: Exchange, found: object) -> None:
        exchange.reply(200, {"Content-Type": "application/json"}, json.dumps(found).encode())


@contextmanager
def serving_roles(faults: Mapping[int, Handler] | None = None) -> Iterator[RoleServer]:
    """Serve keys until the end of the block."""
    server = RoleServer(faults)
    with running(server):
        yield server
