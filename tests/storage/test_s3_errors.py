"""Every error of botocore becomes one of ours."""

from __future__ import annotations

import inspect
from typing import Any

import botocore.exceptions
import botocore.parsers
import pytest
import urllib3

from posebatch.core.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    InputError,
    ObjectChangedError,
    ObjectNotFoundError,
    PutRefusedError,
    StorageError,
    StorageUnavailableError,
    UnsupportedError,
)
from posebatch.storage.s3_errors import translated_s3_errors
from posebatch.storage.s3_requests import etag_of


def client_error(code: str, status: int) -> botocore.exceptions.ClientError:
    answer: Any = {"Error": {"Code": code, "Message": "said so"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return botocore.exceptions.ClientError(answer, "GetObject")


def translation(error: Exception, conditional: bool = False) -> type[Exception]:
    with pytest.raises(Exception, match="s3://b/k") as raised, translated_s3_errors("s3://b/k", conditional):
        raise error
    return type(raised.value)


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("SlowDown", 503, StorageUnavailableError),
        ("InternalError", 500, StorageUnavailableError),
        ("", 502, StorageUnavailableError),
        ("Throttling", 400, StorageUnavailableError),
        ("RequestTimeout", 400, StorageUnavailableError),
        ("IncompleteBody", 400, StorageUnavailableError),
        ("RequestTimeTooSkewed", 403, StorageUnavailableError),
        ("", 429, StorageUnavailableError),
        ("NoSuchKey", 404, ObjectNotFoundError),
        ("NoSuchBucket", 404, BucketNotFoundError),
        ("", 404, ObjectNotFoundError),
        ("AccessDenied", 403, AccessDeniedError),
        ("ExpiredToken", 400, AccessDeniedError),
        ("NoSuchUpload", 404, ObjectNotFoundError),
        ("PreconditionFailed", 412, ObjectChangedError),
        ("InvalidRequest", 400, StorageError),
    ],
)
def test_translated_s3_errors_by_code_and_status(code: str, status: int, expected: type[StorageError]) -> None:
    assert translation(client_error(code, status)) is expected


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("PreconditionFailed", 412, PutRefusedError),
        ("ConditionalRequestConflict", 409, PutRefusedError),
        ("NoSuchKey", 404, PutRefusedError),
        ("NoSuchBucket", 404, BucketNotFoundError),
        ("NotImplemented", 501, UnsupportedError),
        ("SlowDown", 503, StorageUnavailableError),
    ],
)
def test_translated_s3_errors_of_conditional_requests(code: str, status: int, expected: type[StorageError]) -> None:
    assert translation(client_error(code, status), conditional=True) is expected


@pytest.mark.parametrize(
    "error",
    [
        urllib3.exceptions.ProtocolError("Connection broken"),
        botocore.parsers.ResponseParserError("no element found"),
        botocore.exceptions.ResponseStreamingError(error="broken"),
        botocore.exceptions.ReadTimeoutError(endpoint_url="x"),
        ConnectionResetError(104, "Connection reset by peer"),
        InterruptedError(4, "Interrupted system call"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_translated_s3_errors_of_broken_connections(error: Exception) -> None:
    assert translation(error) is StorageUnavailableError


def test_translated_s3_errors_cover_every_class_of_botocore() -> None:
    classes = [
        error
        for error in vars(botocore.exceptions).values()
        if inspect.isclass(error) and issubclass(error, Exception) and not issubclass(error, Warning)
    ]
    assert len(classes) > 90
    untranslated = []
    for error_class in classes:
        error = error_class.__new__(error_class)  # each constructor wants other arguments
        Exception.__init__(error, "said so")
        if isinstance(error, botocore.exceptions.ClientError):
            error.response = {}
        try:
            with translated_s3_errors("s3://b/k"):
                raise error
        except (StorageError, InputError):
            continue
        except Exception:
            untranslated.append(error_class.__name__)
    assert untranslated == []


def test_a_server_that_redirects_without_end_is_named() -> None:
    assert translation(RecursionError()) is StorageError


@pytest.mark.parametrize("answer", [{}, {"ETag": '"1"'}, {"LastModified": 0}])
def test_an_answer_without_an_etag_is_none_of_a_store(answer: dict[str, object]) -> None:
    with pytest.raises(StorageUnavailableError, match="s3://b/k: the answer is not that of an S3 store"):
        etag_of(answer, "s3://b/k")
