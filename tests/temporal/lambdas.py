"""A Temporal server that starts serverless workers, and the AWS Lambda that it calls for that."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from temporalio.api.common.v1 import Payload
from temporalio.api.compute.v1 import ComputeConfig, ComputeConfigScalingGroup, ComputeProvider
from temporalio.api.deployment.v1 import WorkerDeploymentVersion
from temporalio.api.workflowservice.v1 import CreateWorkerDeploymentRequest, CreateWorkerDeploymentVersionRequest
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment

from tests.servers import temporal_server

_FUNCTION = {"arn": "arn:aws:lambda:us-east-1:123456789012:function:worker:1"}
_CONFIGURATION: dict[str, bool | int | list[str]] = {
    "workercontroller.enabled": True,
    "workercontroller.compute_providers.enabled": ["aws-lambda"],
    "workercontroller.compute_providers.aws.require_role_and_external_id": False,
    # Milliseconds between two tasks without a worker that each start one.
    "workercontroller.hook.min_signal_interval_no_sync_match": 1,
}


class Lambda:
    """Lambda's API as far as Temporal calls it: it has every function, and runs none.

    Attributes:
        invoked: Set by each call of a function: a test starts the worker itself, after a cold start as long as it likes.
    """

    def __init__(self) -> None:
        self.invoked = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        """Answer `GetFunction`, or `Invoke`."""
        if request.method == "GET":
            return web.json_response({})
        self.invoked.set()
        return web.json_response({}, status=202)


@asynccontextmanager
async def serverless_server() -> AsyncIterator[tuple[WorkflowEnvironment, Lambda]]:
    """A dev server that calls this Lambda for tasks without a worker."""
    functions, application = Lambda(), web.Application()
    application.router.add_route("*", "/{path:.*}", functions.answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
            environment.setenv("AWS_ACCESS_KEY_ID", "test")
            environment.setenv("AWS_SECRET_ACCESS_KEY", "test")
            async with temporal_server(**_CONFIGURATION) as server:
                yield server, functions
    finally:
        await runner.cleanup()


async def create_serverless_version(client: Client, name: str, build: str) -> None:
    """Create a version whose workers Temporal starts; it starts one at once, which polls its task queues."""
    service, namespace = client.workflow_service, client.namespace
    await service.create_worker_deployment(CreateWorkerDeploymentRequest(namespace=namespace, deployment_name=name))
    details = Payload(metadata={"encoding": b"json/plain"}, data=json.dumps(_FUNCTION).encode())
    group = ComputeConfigScalingGroup(provider=ComputeProvider(type="aws-lambda", details=details))
    await service.create_worker_deployment_version(
        CreateWorkerDeploymentVersionRequest(
            namespace=namespace,
            deployment_version=WorkerDeploymentVersion(deployment_name=name, build_id=build),
            compute_config=ComputeConfig(scaling_groups={"all": group}),
        )
    )
