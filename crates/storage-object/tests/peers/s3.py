"""boto3 as a peer of the tests: a JSON object on standard input, a JSON list on standard output.

In: `options` as `BlobStore::storage_options` names them, `container`, and `calls`, each with its name in `do`.
Out: what each call came to; `{"refused": status}` where the service said no.
"""

import base64
import json
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

PART = 5 << 20


class Peer:
    def __init__(self, options, container):
        hosted = options["aws_virtual_hosted_style_request"] == "true"
        self.s3 = boto3.client(
            "s3",
            endpoint_url=options["aws_endpoint_url"],
            region_name=options["aws_region"],
            aws_access_key_id=options["aws_access_key_id"],
            aws_secret_access_key=options["aws_secret_access_key"],
            config=Config(s3={"addressing_style": "virtual" if hosted else "path"}),
        )
        self.bucket = container

    def put(self, name, content, attributes, chunked=False, if_match=None):
        body = base64.b64decode(content)
        place = {"Bucket": self.bucket, "Key": name}
        fields = {
            "ContentType": attributes.get("content_type"),
            "CacheControl": attributes.get("cache_control"),
            "ContentDisposition": attributes.get("content_disposition"),
            "ContentEncoding": attributes.get("content_encoding"),
            "Metadata": attributes.get("metadata"),
        }
        fields = {field: value for field, value in fields.items() if value is not None}
        if not chunked:
            condition = {"IfMatch": if_match} if if_match else {}
            return {"etag": unquoted(self.s3.put_object(**place, Body=body, **fields, **condition)["ETag"])}
        upload = {**place, "UploadId": self.s3.create_multipart_upload(**place, **fields)["UploadId"]}
        parts = []
        for number, start in enumerate(range(0, len(body), PART), 1):
            part = self.s3.upload_part(**upload, PartNumber=number, Body=body[start : start + PART])
            parts.append({"PartNumber": number, "ETag": part["ETag"]})
        done = self.s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        return {"etag": unquoted(done["ETag"])}

    def get(self, name):
        answer = self.s3.get_object(Bucket=self.bucket, Key=name)
        attributes = {
            "content_type": answer.get("ContentType"),
            "cache_control": answer.get("CacheControl"),
            "content_disposition": answer.get("ContentDisposition"),
            "content_encoding": answer.get("ContentEncoding"),
            "metadata": answer["Metadata"],
        }
        content = base64.b64encode(answer["Body"].read()).decode()
        return {"content": content, "etag": unquoted(answer["ETag"]), "attributes": attributes}

    def list(self, prefix):
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        blobs = [blob for page in pages for blob in page.get("Contents", [])]
        return [{"name": b["Key"], "size": b["Size"], "etag": unquoted(b["ETag"])} for b in blobs]


def unquoted(etag):
    return etag.strip('"')


def answer(peer, call):
    do = call.pop("do")
    try:
        return getattr(peer, do)(**call)
    except ClientError as error:
        return {"refused": error.response["ResponseMetadata"]["HTTPStatusCode"]}


def main():
    asked = json.load(sys.stdin)
    peer = Peer(asked["options"], asked["container"])
    json.dump([answer(peer, call) for call in asked["calls"]], sys.stdout)


main()
