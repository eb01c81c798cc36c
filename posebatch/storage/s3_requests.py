"""Requests to S3 that stores and readers share, in one attempt each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from posebatch.core.errors import StorageUnavailableError
from posebatch.storage.addresses import REQUESTER_PAYS
from posebatch.storage.s3_errors import code_and_status, translated_s3_errors

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef


def payer(access: str) -> Any:
    """The argument by which the reader agrees to pay for a request; see `SourceVideo.access`."""
    return {"RequestPayer": "requester"} if access == REQUESTER_PAYS else {}


def head_object(
    client: S3Client, bucket: str, key: str, more: Mapping[str, Any] = MappingProxyType({})
) -> HeadObjectOutputTypeDef:
    """Size, ETag and metadata of an object, in one attempt. Raises `ObjectNotFoundError` or another `StorageError`."""
    from botocore.exceptions import ClientError  # noqa: PLC0415 - see `s3_client`

    uri = f"s3://{bucket}/{key}"
    with translated_s3_errors(uri):
        try:
            return client.head_object(Bucket=bucket, Key=key, **more)
        except ClientError as error:
            if code_and_status(error)[1] not in {"400", "403"}:
                raise
        # the answer to a HEAD has no body that could name the reason; the answer to a GET has one
        client.get_object(Bucket=bucket, Key=key, **more)["Body"].close()
    raise StorageUnavailableError(f"{uri}: the store refused a HEAD and then allowed a GET")


def etag_of(answer: Mapping[str, Any], uri: str) -> str:
    """The ETag of an object, from the answer to a GET or a HEAD; see `check_answer`."""
    check_answer(answer, ("ETag", "LastModified"), uri)
    etag: str = answer["ETag"].strip('"')
    return etag


def check_answer(answer: Mapping[str, Any], names: Sequence[str], uri: str) -> None:
    """Raise `StorageUnavailableError` if an answer lacks what every store states: another server has answered."""
    if any(name not in answer for name in names):
        raise StorageUnavailableError(f"{uri}: the answer is not that of an S3 store; check the endpoint address")
