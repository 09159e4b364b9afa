"""What a user has configured about access, read into what the API server takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from knarr.apiserver.access import AccessSettings
from knarr.apiserver.authenticate import Issuer
from knarr.client.transport import User
from knarr.clock import Clock
from knarr.config import Config, ConfigError


def access_settings(config: Config, clock: Clock) -> AccessSettings:
    """Raises ConfigError."""
    return AccessSettings(
        static_tokens=_tokens(config.token_auth_file),
        issuers=_issuers(config.authentication_config, clock),
        owner_references="OwnerReferencesPermissionEnforcement" in config.admission_plugins,
    )


def _tokens(path: str) -> Mapping[str, User]:
    if not path:
        return {}
    from knarr.apiserver.static_tokens import TokenFileError, read_token_file

    try:
        return read_token_file(Path(path))
    except TokenFileError as error:
        raise ConfigError([f"tokenAuthFile: {error}"]) from None


def _issuers(path: str, clock: Clock) -> list[Issuer]:
    if not path:
        return []
    from knarr.apiserver.authentication_config import AuthenticationConfigError, read_authentication_config
    from knarr.apiserver.oidc import OIDCIssuer

    try:
        return [OIDCIssuer(settings, clock) for settings in read_authentication_config(Path(path))]
    except AuthenticationConfigError as error:
        raise ConfigError([f"authenticationConfig: {problem}" for problem in error.problems]) from None
