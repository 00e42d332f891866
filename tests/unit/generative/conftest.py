"""A stand-in for Amazon's service: the real AwsDevice, tasks and results above a session that answers offline."""

from __future__ import annotations

import json
import uuid
from typing import Any

import numpy as np
import pytest


class Service:
    """Answers for one device; runs every task on Braket's own local simulator."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.requests: list[dict[str, Any]] = []
        self.results: dict[str, str] = {}

    @property
    def shots(self) -> list[int]:
        return [request["shots"] for request in self.requests]

    def get_device(self, arn: str) -> dict[str, Any]:
        return {
            "deviceArn": arn,
            "deviceName": "Cepheus-1-108Q",
            "providerName": "Rigetti",
            "deviceType": "QPU",
            "deviceStatus": "ONLINE",
            "deviceCapabilities": json.dumps(self.document),
        }

    def create(self, request: dict[str, Any]) -> str:
        from braket.devices import LocalSimulator
        from braket.ir.openqasm import Program
        from braket.task_result import AdditionalMetadata, GateModelTaskResult, TaskMetadata

        program = Program.parse_raw(request["action"])
        ran = LocalSimulator().run(program, shots=request["shots"]).result()
        arn = f"arn:aws:braket:us-west-1:000000000000:quantum-task/{uuid.uuid4()}"
        words, counts = np.unique(np.asarray(ran.measurements), axis=0, return_counts=True)
        shares = {
            "".join(map(str, word)): int(c) / len(ran.measurements) for word, c in zip(words, counts, strict=True)
        }
        for one in ran.result_types or []:
            one.value = np.asarray(one.value).tolist()
        self.results[arn] = GateModelTaskResult(
            measurementProbabilities=shares,
            measuredQubits=list(ran.measured_qubits),
            resultTypes=ran.result_types or None,
            taskMetadata=TaskMetadata(id=arn, shots=request["shots"], deviceId=request["deviceArn"]),
            additionalMetadata=AdditionalMetadata(action=program),
        ).json()
        self.requests.append(request)
        return arn


@pytest.fixture
def aws() -> Any:
    """`aws(document)` -> (session, service): a braket.aws.AwsSession that never opens a connection."""
    import boto3
    from braket.aws import AwsSession

    class Session(AwsSession):
        def __init__(self, service: Service) -> None:
            keys = {"aws_access_key_id": "none", "aws_secret_access_key": "none"}
            super().__init__(boto_session=boto3.Session(region_name="us-west-1", **keys))
            self.service = service

        def get_device(self, arn: str) -> dict[str, Any]:
            return self.service.get_device(arn)

        def default_bucket(self) -> str:
            return "amazon-braket-none"

        def create_quantum_task(self, **request: Any) -> str:
            return self.service.create(request)

        def get_quantum_task(self, arn: str) -> dict[str, Any]:
            return {
                "quantumTaskArn": arn,
                "status": "COMPLETED",
                "outputS3Bucket": "none",
                "outputS3Directory": arn,
                "deviceArn": "none",
                "shots": 1,
            }

        def retrieve_s3_object_body(self, s3_bucket: str, s3_object_key: str) -> str:
            return self.service.results[s3_object_key.rsplit("/results.json", 1)[0]]

    def make(document: dict[str, Any]) -> tuple[Any, Service]:
        service = Service(document)
        return Session(service), service

    return make
