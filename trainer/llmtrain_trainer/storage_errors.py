"""What went wrong in storage, and the words for it.

Pure: reads the text of an error of `obstore`, which carries the S3 error code of the server's
answer, and returns one of our errors with the place at fault and what to do.
"""

from __future__ import annotations

import re
from enum import Enum, auto

from obstore.exceptions import (
    AlreadyExistsError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from llmtrain_api.errors import ConfigError, DataError, LLMTrainError, StorageError


class Fault(Enum):
    """The kinds of fault that call for different words or different action."""

    EXISTS = auto()
    CHANGED = auto()
    OBJECT_MISSING = auto()
    BUCKET_MISSING = auto()
    DENIED = auto()
    WRONG_KEY = auto()
    NO_KEY = auto()
    WRONG_REGION = auto()
    UNREACHABLE = auto()
    BROKEN = auto()


KEY_FAULTS = frozenset({Fault.DENIED, Fault.WRONG_KEY, Fault.NO_KEY})
"""Faults of the account. An account that worked before may be in the middle of a rotation."""

OUTAGES = frozenset({Fault.UNREACHABLE, Fault.BROKEN})
"""Faults that time may heal."""

_BY_CODE = {
    "NoSuchBucket": Fault.BUCKET_MISSING,
    "NoSuchKey": Fault.OBJECT_MISSING,
    "AccessDenied": Fault.DENIED,
    "AllAccessDisabled": Fault.DENIED,
    "SignatureDoesNotMatch": Fault.WRONG_KEY,
    "InvalidAccessKeyId": Fault.WRONG_KEY,
    "ExpiredToken": Fault.WRONG_KEY,
    "InvalidToken": Fault.WRONG_KEY,
    "PermanentRedirect": Fault.WRONG_REGION,
    "AuthorizationHeaderMalformed": Fault.WRONG_REGION,
    "IllegalLocationConstraintException": Fault.WRONG_REGION,
    "PreconditionFailed": Fault.CHANGED,
    "InvalidRange": Fault.CHANGED,  # The object is shorter than a listing or a manifest said.
}
_BY_TYPE: tuple[tuple[type[BaseException], Fault], ...] = (
    (AlreadyExistsError, Fault.EXISTS),
    (PreconditionError, Fault.CHANGED),
    (UnauthenticatedError, Fault.NO_KEY),
    (PermissionDeniedError, Fault.DENIED),
    (PermissionError, Fault.DENIED),
)
_WORDS: dict[
    Fault, tuple[type[ConfigError] | type[DataError] | type[StorageError], str, str, str]
] = {
    Fault.EXISTS: (
        StorageError,
        "{uri}",
        "{endpoint} failed: {detail}",
        "see the server's own logs",
    ),
    Fault.CHANGED: (
        DataError,
        "{uri}",
        "it changed since the run began",
        "put back the object that the run began with",
    ),
    Fault.OBJECT_MISSING: (
        DataError,
        "{uri}",
        "there is no such object",
        "upload it or correct {field}",
    ),
    Fault.BUCKET_MISSING: (
        ConfigError,
        "{field}",
        "bucket {bucket} does not exist at {endpoint}",
        "create it or correct the URI",
    ),
    Fault.DENIED: (
        ConfigError,
        "{field}",
        "access to {uri} is denied: {detail}",
        "give the account of storage.secretName the right to it",
    ),
    Fault.WRONG_KEY: (
        ConfigError,
        "storage.secretName",
        "{endpoint} does not accept the key for {uri}: {detail}",
        "put a valid AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY into the Secret",
    ),
    Fault.NO_KEY: (
        ConfigError,
        "storage.secretName",
        "no account for {uri} was found: {detail}",
        "name a Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the pods'"
        " ServiceAccount a role",
    ),
    Fault.WRONG_REGION: (
        ConfigError,
        "storage.region",
        "{bucket} is in another region: {detail}",
        "set its region",
    ),
    Fault.UNREACHABLE: (
        StorageError,
        "{uri}",
        "{endpoint} does not answer: {detail}",
        "check storage.endpoint and the server",
    ),
    Fault.BROKEN: (
        StorageError,
        "{uri}",
        "{endpoint} failed: {detail}",
        "see the server's own logs",
    ),
}
"""The class of the error for each fault, its place, what is wrong, and the way out."""
_CODE = re.compile(r"<Code>(\w+)</Code>")
_SHORTER = "Requested range was invalid"  # What the store of local files says for InvalidRange.
_METADATA_SERVICE = "169.254.169.254"  # Where an account is looked for when none is given.


def fault_of(error: BaseException) -> Fault:
    """Returns what kind of fault an error of obstore is."""
    text = str(error)
    if isinstance(error, AlreadyExistsError):  # Its text holds the server's PreconditionFailed.
        return Fault.EXISTS
    code = _CODE.search(text)
    if code and code[1] in _BY_CODE:
        return _BY_CODE[code[1]]
    if isinstance(error, FileNotFoundError):
        return Fault.OBJECT_MISSING
    for kind, fault in _BY_TYPE:
        if isinstance(error, kind):
            return fault
    if _SHORTER in text:
        return Fault.CHANGED
    if _METADATA_SERVICE in text:
        return Fault.NO_KEY
    return Fault.UNREACHABLE if "kind: Connect" in text or "Timeout" in text else Fault.BROKEN


def detail_of(error: BaseException) -> str:
    """Returns the server's or the system's own words for an error."""
    text = str(error)
    message = re.search(r"<Message>([^<]*)</Message>", text)
    code = _CODE.search(text)
    if code:
        return f"{code[1]} ({message[1].rstrip('.')})" if message else code[1]
    if _METADATA_SERVICE in text:
        return "neither a Secret nor the environment nor the machine has one"
    cause = re.search(r'(?:message|error): "([^"]+)"', text)
    if cause:
        return cause[1][:300]
    first = text.strip().splitlines()[0] if text.strip() else type(error).__name__
    return first.rpartition(" - ")[2][:300]


def to_error(
    fault: Fault, uri: str, *, field: str, endpoint: str, detail: str, worked: bool
) -> LLMTrainError:
    """Returns the error for the user.

    Args:
        fault: What kind of fault it is.
        uri: The object or folder that was asked for.
        field: Path of the field in the spec that names the place, such as `model.uri`.
        endpoint: URL of the server, or a word for it.
        detail: The server's own words.
        worked: Whether the account has worked in this process; then a refusal is an outage (a key
            that is being rotated), not a mistake in the spec.
    """
    bucket = "/".join(uri.split("/")[:3])
    if worked and fault in KEY_FAULTS:
        return StorageError(uri, f"the account is no longer accepted: {detail}", "check its keys")
    kind, *words = _WORDS[fault]
    values = {"uri": uri, "field": field, "endpoint": endpoint, "detail": detail, "bucket": bucket}
    place, problem, remedy = (each.format_map(values) for each in words)
    return kind(place, problem, remedy)
