"""Errors of botocore, translated into ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from posebatch.core.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    InputError,
    ObjectNotFoundError,
    StorageError,
    StorageUnavailableError,
    UnsupportedError,
)
from posebatch.storage.store import changed_error, cold_error, refused_error

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

_NOT_FOUND: Final = {"404", "NoSuchKey", "NoSuchUpload", "NotFound"}


_EXPIRED: Final = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}


_DENIED: Final = {
    "401",
    "403",
    "AccessDenied",
    "Forbidden",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "AccountProblem",
    "AllAccessDisabled",
}


_TRANSIENT: Final = {
    "408",
    "409",
    "429",
    "BadDigest",
    "IncompleteBody",
    "OperationAborted",
    "RequestTimeout",
    "RequestTimeTooSkewed",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "XAmzContentSHA256Mismatch",
}


@contextlib.contextmanager
def translated_s3_errors(uri: str, conditional: bool = False) -> Iterator[None]:
    """Raise one of our errors for each error of botocore in the block; ``uri`` stands in its message.

    ``conditional``: the request has an If-Match or If-None-Match, so a conflict is a `PutRefusedError`. Raises
    `InputError` for an invalid bucket or key, and a `StorageError` for all others.
    """
    from botocore import exceptions, parsers  # noqa: PLC0415 - see `s3_client`
    from urllib3.exceptions import HTTPError  # noqa: PLC0415 - botocore does not wrap it while it reads a body

    try:
        yield
    except exceptions.ClientError as error:
        raise _put_error(error, uri) if conditional else _translated(error, uri) from error
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
        raise AccessDeniedError(
            f"{uri}: no S3 credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "AWS_PROFILE, or give the machine a role"
        ) from error
    except (
        exceptions.ConnectionError,
        exceptions.HTTPClientError,
        exceptions.IncompleteReadError,
        parsers.ResponseParserError,
        HTTPError,
        OSError,
    ) as error:
        raise StorageUnavailableError(f"{uri}: the store did not answer: {error}") from error
    except exceptions.ParamValidationError as error:
        raise InputError(f"{uri}: no valid bucket or key: {error}") from error
    except (exceptions.BotoCoreError, exceptions.UndefinedModelAttributeError, ValueError) as error:
        raise StorageError(f"{uri}: {error}") from error
    except RecursionError as error:
        raise StorageError(f"{uri}: the store redirects without end; check the endpoint address") from error


def _put_error(error: ClientError, uri: str) -> StorageError:
    """The error of a conditional put or delete."""
    code, status = code_and_status(error)
    if status in {"409", "412"} or (status == "404" and code == "NoSuchKey"):
        return refused_error(uri)
    if status == "501" or code == "NotImplemented":
        return UnsupportedError(f"{uri}: this store has no conditional puts")
    return _translated(error, uri)


def code_and_status(error: ClientError) -> tuple[str, str]:
    """The error code and the HTTP status of the answer, both as text; empty where the answer has none."""
    code = error.response.get("Error", {}).get("Code", "")
    return code, str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))


def _is_about_kms(error: ClientError, code: str) -> bool:
    message = error.response.get("Error", {}).get("Message", "")
    return code.startswith("KMS.") or (code == "AccessDenied" and "kms:" in message.lower())


def _translated(error: ClientError, uri: str) -> StorageError:  # noqa: PLR0911 - a table, one row per class
    code, status = code_and_status(error)
    if code in {"PreconditionFailed", "412"} or status == "412":
        return changed_error(uri)
    if code == "NoSuchBucket":
        return BucketNotFoundError(
            f"{uri}: no such bucket; check its name and, for a store other than AWS, --endpoint-url"
        )
    if code in _NOT_FOUND or status == "404":
        return ObjectNotFoundError(f"{uri}: no such bucket or key")
    if code == "InvalidObjectState":
        return cold_error(uri, "a cold class")
    if _is_about_kms(error, code):
        return AccessDeniedError(
            f"{uri}: the object's KMS key refuses: allow kms:Decrypt on it for inputs, and kms:GenerateDataKey for the "
            f"output, and check that it is enabled ({code})"
        )
    if code in _EXPIRED:
        return AccessDeniedError(f"{uri}: the credentials have expired; renew them, and the same command goes on")
    if code == "RequestTimeTooSkewed":
        return StorageUnavailableError(f"{uri}: this machine's clock differs from the store's; set it right ({code})")
    if code in _TRANSIENT or status in _TRANSIENT or status.startswith("5"):
        return StorageUnavailableError(f"{uri}: the store is unavailable ({code or status})")
    if code in _DENIED or status in {"401", "403"}:
        return AccessDeniedError(f"{uri}: access denied ({code}); check the credentials and the bucket's policy")
    return StorageError(f"{uri}: {code}: {error.response.get('Error', {}).get('Message', error)}")
