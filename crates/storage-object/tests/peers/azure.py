"""azure-storage-blob as a peer of the tests: a JSON object on standard input, a JSON list on standard output.

In: `options` as `BlobStore::storage_options` names them, `container`, and `calls`, each with its name in `do`.
Out: what each call came to; `{"refused": status}` where the service said no.
"""

import base64
import json
import sys

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import ContainerClient, ContentSettings

BLOCK = 5 << 20
# The emulator knows the newest version later than the client.
API_VERSION = "2024-11-04"


class Peer:
    def __init__(self, options, container):
        credential = {
            "account_name": options["azure_storage_account_name"],
            "account_key": options["azure_storage_account_key"],
        }
        # What is larger than these goes in blocks.
        limits = {"max_single_put_size": BLOCK, "max_block_size": BLOCK}
        self.container = ContainerClient(
            options["azure_storage_endpoint"], container, credential=credential, api_version=API_VERSION, **limits
        )

    def put(self, name, content, attributes, chunked=False, if_match=None):
        body = base64.b64decode(content)
        assert chunked == (len(body) > BLOCK), "the size decides whether a blob goes in blocks"
        settings = ContentSettings(
            content_type=attributes.get("content_type"),
            cache_control=attributes.get("cache_control"),
            content_disposition=attributes.get("content_disposition"),
            content_encoding=attributes.get("content_encoding"),
        )
        condition = {"etag": f'"{if_match}"', "match_condition": MatchConditions.IfNotModified} if if_match else {}
        blob = self.container.get_blob_client(name)
        done = blob.upload_blob(
            body, overwrite=True, content_settings=settings, metadata=attributes.get("metadata"), **condition
        )
        return {"etag": unquoted(done["etag"])}

    def get(self, name):
        download = self.container.get_blob_client(name).download_blob()
        settings = download.properties.content_settings
        attributes = {
            "content_type": settings.content_type,
            "cache_control": settings.cache_control,
            "content_disposition": settings.content_disposition,
            "content_encoding": settings.content_encoding,
            "metadata": download.properties.metadata,
        }
        content = base64.b64encode(download.readall()).decode()
        return {"content": content, "etag": unquoted(download.properties.etag), "attributes": attributes}

    def list(self, prefix):
        blobs = self.container.list_blobs(name_starts_with=prefix)
        return [{"name": b.name, "size": b.size, "etag": unquoted(b.etag)} for b in blobs]


def unquoted(etag):
    return etag.strip('"')


def answer(peer, call):
    do = call.pop("do")
    try:
        return getattr(peer, do)(**call)
    except HttpResponseError as error:
        return {"refused": error.status_code}


def main():
    asked = json.load(sys.stdin)
    peer = Peer(asked["options"], asked["container"])
    json.dump([answer(peer, call) for call in asked["calls"]], sys.stdout)


main()
