"""azure-storage-queue as a peer of the tests: a JSON object on standard input, a JSON list on standard output.

In: `endpoint`, `account`, `key`, `queue`, and `calls`, each with its name in `do`. Bodies are base64 within this JSON.
"""

import base64
import json
import sys

from azure.storage.queue import (
    BinaryBase64DecodePolicy,
    BinaryBase64EncodePolicy,
    QueueClient,
    TextBase64DecodePolicy,
    TextBase64EncodePolicy,
)

# The emulator knows the newest version later than the client.
API_VERSION = "2024-11-04"
POLICIES = {
    "binary": {"message_encode_policy": BinaryBase64EncodePolicy(), "message_decode_policy": BinaryBase64DecodePolicy()},
    "text": {"message_encode_policy": TextBase64EncodePolicy(), "message_decode_policy": TextBase64DecodePolicy()},
    # What it does by default.
    "none": {},
}


def client(asked, policy):
    credential = {"account_name": asked["account"], "account_key": asked["key"]}
    return QueueClient(asked["endpoint"], asked["queue"], credential=credential, api_version=API_VERSION, **POLICIES[policy])


def create(asked, call):
    client(asked, "none").create_queue()


def send(asked, call):
    body = base64.b64decode(call["body"])
    message = body if call["policy"] == "binary" else body.decode()
    return client(asked, call["policy"]).send_message(message).id


def receive(asked, call):
    """Receives, deletes and answers up to 32 messages."""
    queue = client(asked, call["policy"])
    found = []
    for message in queue.receive_messages(max_messages=32, visibility_timeout=30):
        content = message.content if isinstance(message.content, bytes) else message.content.encode()
        found.append({"id": message.id, "body": base64.b64encode(content).decode(), "deliveries": message.dequeue_count})
        queue.delete_message(message)
    return found


def metadata(asked, call):
    return client(asked, "none").get_queue_properties().metadata


def main():
    asked = json.load(sys.stdin)
    json.dump([globals()[call["do"]](asked, call) for call in asked["calls"]], sys.stdout)


main()
