"""A site's connection to the aggregator: Flower's fleet API over TLS, as one node, without Flower's SuperNode.

    activate -> (pull -> fetch -> reply)* -> deactivate,   heartbeat beside it

Flower's own connection ends the process when something fails; this one raises a LinkError that says what is wrong, and
keeps no state of the process: many nodes may live as threads of one. No app bundle is ever fetched. A reply can be sent
again (same identifier): the aggregator takes it once. Redirects are not followed, TLS is 1.3, and the only certificate
authority is the site's. Every request is signed with the node's key and the time, so a clock that is off is refused.
Cost    3 objects a message: 5 requests in, 4 out
Errors  Unreachable, CertificateRefused, NotAdmitted, TwoAgents, RunOver
"""

from __future__ import annotations

import secrets
import ssl
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from flwr.app.message import remove_content_from_message
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata
from flwr.supernode.fleet_http_client import FleetHttpClient

from qfed._flower import INSTANCE_HEADER, Message, name_message
from qfed.errors import CertificateRefused, LinkError, NotAdmitted, RunOver, TwoAgents, Unreachable

HEARTBEAT_INTERVAL = 15.0
"""Seconds told to the aggregator; it counts a node as offline after two of them."""
_TIMEOUT, _HEARTBEAT_TIMEOUT = 30.0, 5.0
_OBJECT_TRIES, _OBJECT_PAUSE = 40, 0.25
_CLOCK_BEHIND, _CLOCK_AHEAD = 300.0, 5.0
"""How far a signed time may be off (flwr.common.constant.TIMESTAMP_TOLERANCE, SYSTEM_TIME_TOLERANCE)."""
_EXPIRED, _HOST = 10, (62, 64)  # X509_V_ERR_CERT_HAS_EXPIRED, _HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH

Clock = Callable[[], datetime]
_T = TypeVar("_T")


def utc_now() -> datetime:
    """The time of this machine."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Envelope:
    """A message that the aggregator has for this node, its content still to be fetched."""

    head: Message
    tree: ObjectTree


class _Signs:
    """Puts the node's key, the time and its signature on every request, and the versions."""

    def __init__(self, key: EllipticCurvePrivateKey, clock: Clock, agent: str) -> None:
        self._key, self._clock = key, clock
        self._fixed = {
            FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(public_key_to_bytes(key.public_key())).decode(),
            "user-agent": agent,
            INSTANCE_HEADER: secrets.token_hex(16),
            **dict(RuntimeVersionMetadata.from_local_component("SuperNode").as_metadata()),
        }

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Add the headers and go on."""
        signed = self._clock().isoformat()
        signature = b64encode(sign_message(self._key, signed.encode())).decode()
        context.request.headers.update(
            {**self._fixed, TIMESTAMP_HEADER: signed, FLEET_HTTP_SIGNATURE_HEADER: signature}
        )
        return call_next(context)


class Fleet:
    """One node's connection; safe to use from two threads at once, so that heartbeats go on during a round."""

    def __init__(
        self, address: str, ca: bytes, key: EllipticCurvePrivateKey, *, agent: str, clock: Clock = utc_now
    ) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        try:
            context.load_verify_locations(cadata=ca.decode("ascii"))
        except (ssl.SSLError, UnicodeDecodeError, ValueError) as error:
            raise CertificateRefused(
                f"the file of the certificate authority is not PEM ({error}); copy it again"
            ) from None
        self.address, self._clock = address, clock
        self._public = public_key_to_bytes(key.public_key())
        self._client = FleetHttpClient(
            f"https://{address}", interceptors=[_Signs(key, clock, agent)], verify=context, timeout=_TIMEOUT
        )
        self._client._client.follow_redirects = False
        self._node: Node | None = None

    @property
    def node(self) -> Node:
        """This node; LinkError before `activate`."""
        if self._node is None:
            raise LinkError("the connection has not been activated")
        return self._node

    @property
    def active(self) -> bool:
        """Whether this node has logged in, and not out."""
        return self._node is not None

    def close(self) -> None:
        """Close the sockets."""
        self._client.close()

    # -- being there ---------------------------------------------------------------------------------------------

    def activate(self) -> int:
        """Log in; the node's identifier. NotAdmitted when the key is unknown or still counts as online."""
        request = ActivateNodeRequest(public_key=self._public, heartbeat_interval=HEARTBEAT_INTERVAL)
        self._node = Node(node_id=self._call(self._client.ActivateNode, request).node_id)
        return int(self._node.node_id)

    def heartbeat(self) -> None:
        """Say that this node is there."""
        request = SendNodeHeartbeatRequest(node=self.node, heartbeat_interval=HEARTBEAT_INTERVAL)
        if not self._call(self._client.SendNodeHeartbeat, request).success:
            raise NotAdmitted("the aggregator no longer knows this site; ask its operator whether it was revoked")

    def deactivate(self) -> None:
        """Log out, so that the aggregator does not wait for this node."""
        node, self._node = self.node, None
        self._call(self._client.DeactivateNode, DeactivateNodeRequest(node_id=node.node_id))

    # -- messages ------------------------------------------------------------------------------------------------

    def pull(self) -> Envelope | None:
        """The next message for this node, None when there is none. The aggregator hands each out once."""
        response = self._call(self._client.PullMessages, PullMessagesRequest(node=self.node))
        if not response.messages_list:
            return None
        return Envelope(message_from_proto(response.messages_list[0]), response.message_object_trees[0])

    def fetch(self, envelope: Envelope) -> Message:
        """A message's content."""
        run_id = envelope.head.metadata.run_id
        contents = {}
        for part in iterate_object_tree(envelope.tree):
            request = PullObjectRequest(node=self.node, run_id=run_id, object_id=part.object_id)
            for _ in range(_OBJECT_TRIES):
                response = self._call(self._client.PullObject, request)
                if response.object_available or not response.object_found:
                    break
                time.sleep(_OBJECT_PAUSE)  # the aggregator is still writing it
            if not response.object_available:
                raise RunOver("a message's content is no longer at the aggregator")
            contents[part.object_id] = response.object_content
        try:
            message = inflate_object_from_contents(envelope.tree.object_id, contents)
        except (KeyError, ValueError, TypeError) as error:
            raise RunOver(f"a message cannot be read ({type(error).__name__})") from None
        if not isinstance(message, Message):
            raise RunOver("what came is not a message")
        name_message(message, envelope.tree.object_id)
        return message

    def confirm(self, message: Message) -> None:
        """Tell the aggregator that a message arrived; it forgets its content."""
        about = message.metadata
        request = ConfirmMessageReceivedRequest(node=self.node, run_id=about.run_id, message_object_id=about.message_id)
        self._call(self._client.ConfirmMessageReceived, request)

    def reply(self, message: Message, seconds: float) -> int:
        """Send a reply; bytes of its content that were sent now. Sending it again completes what was cut off."""
        run_id, sent = message.metadata.run_id, 0
        with no_object_id_recompute():
            tree, parts = get_object_tree(message), get_all_nested_objects(message)
            request = PushMessagesRequest(
                node=self.node,
                messages_list=[message_to_proto(_without_content(message))],
                message_object_trees=[tree],
                clientapp_runtime_list=[seconds],
            )
            response = self._call(self._client.PushMessages, request)
            for name in response.objects_to_push:
                content = parts[name].deflate()
                stored = self._call(
                    self._client.PushObject,
                    PushObjectRequest(
                        node=self.node,
                        run_id=run_id,
                        object_id=name,
                        object_content=content,
                        session_id=response.session_id,
                    ),
                ).stored
                if not stored:
                    raise Unreachable("the aggregator did not keep a part of the reply; it is sent again")
                sent += len(content)
        return sent

    # -- what can go wrong ---------------------------------------------------------------------------------------

    def _call(self, method: Callable[[Any], _T], request: Any) -> _T:
        try:
            return method(request)
        except httpx.HTTPStatusError as error:
            raise self._refused(error.response) from None
        except (httpx.HTTPError, ssl.SSLError) as error:
            raise self._cut_off(error) from None
        except ValueError as error:
            raise Unreachable(f"{self.address} does not answer as an aggregator does ({error})") from None

    def _refused(self, response: httpx.Response) -> LinkError:
        status = response.status_code
        if status == httpx.codes.LOCKED:
            return TwoAgents(
                "two agents speak for this site at once: its folder was copied, and both copies run (or another "
                "machine was not switched off). The aggregator serves neither until one is stopped. Keep the folder "
                "whose `qfed site log show` tells of the newest rounds, stop the other and remove it: a copy "
                "spends the same privacy budget a second time"
            )
        if status == httpx.codes.UNAUTHORIZED:
            return NotAdmitted(self._why_unauthorized(response))
        told = FlowerError.from_json(response.text)
        if told is not None and told.code == ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED:
            return RunOver("the run has ended")
        if told is not None and told.code == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED:
            return NotAdmitted(
                "the aggregator does not let this site in yet: a connection of it that was not closed counts as online "
                f"for up to {2 * HEARTBEAT_INTERVAL:.0f} s, or its node key is not registered (then the aggregator "
                "needs the newest federation file, and this site's key must be the one in it)"
            )
        return Unreachable(f"{self.address} answered with HTTP status {status}; is it a qfed server?")

    def _why_unauthorized(self, response: httpx.Response) -> str:
        with suppress(TypeError, ValueError, KeyError):
            ahead = (self._clock() - parsedate_to_datetime(response.headers["date"])).total_seconds()
            if not -_CLOCK_BEHIND < ahead < _CLOCK_AHEAD:
                return (
                    f"this machine's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the "
                    "aggregator's, so that signed requests are refused; set the clock (NTP)"
                )
        return (
            "the aggregator does not know this site's node key: it was revoked, or the aggregator has another "
            "federation file; compare fingerprints with the coordinator"
        )

    def _cut_off(self, error: Exception) -> LinkError:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            return Unreachable(f"no connection to {self.address} ({type(error).__name__}: {error or 'cut off'})")
        if cause.verify_code == _EXPIRED:
            way_out = "has expired; its operator must renew it (and check this machine's clock)"
        elif cause.verify_code in _HOST:
            way_out = f"is not for this address ({cause.verify_message}); correct server.address, or renew it"
        else:
            way_out = (
                f"is not signed by the authority in this site's folder ({cause.verify_message}); if the aggregator's "
                "authority is new, get its certificate from the operator and compare fingerprints"
            )
        return CertificateRefused(f"the certificate of {self.address} {way_out}. Nothing was sent")


def _without_content(message: Message) -> Message:
    return remove_content_from_message(message) if message.has_content() else message
