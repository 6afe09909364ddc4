"""The errors of the Hetzner Cloud API: status, code and details as its reference says ("Errors")."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """What is answered instead of a result."""

    def __init__(self, status: int, code: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.details = status, code, message, details

    def body(self) -> dict[str, Any]:
        return {"error": {"code": self.code, "message": self.message, "details": self.details or {}}}


def invalid(field: str, why: str) -> ApiError:
    details = {"fields": [{"name": field, "messages": [why]}]}
    return ApiError(422, "invalid_input", f"invalid input in field '{field}': {why}", details)


def not_found(kind: str, name: object) -> ApiError:
    return ApiError(404, "not_found", f"{kind} with ID '{name}' not found")


def taken(kind: str, field: str) -> ApiError:
    return ApiError(409, "uniqueness_error", f"{kind} {field} is already used", {"fields": [{"name": field}]})


def limit(name: str) -> ApiError:
    return ApiError(403, "resource_limit_exceeded", f"{name} exceeded", {"limits": [{"name": name}]})


def protected(kind: str) -> ApiError:
    return ApiError(423, "protected", f"{kind} is delete protected")


def locked(kind: str) -> ApiError:
    return ApiError(423, "locked", f"{kind} is locked by a running action")


def refused(code: str, message: str) -> ApiError:
    """An error of one operation: status 422, as the reference's tables say."""
    return ApiError(422, code, message)
