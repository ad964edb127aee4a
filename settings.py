"""Every environment variable that the playground reads, once. A `.env` file works too."""

from __future__ import annotations

import os
import sys
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from platformdirs import user_data_path
from pydantic import BeforeValidator, Field, HttpUrl, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from generation.allowance import Limits, Terms

VERSION: Final = "0.1.0"
ON_SPACE: Final = "SPACE_ID" in os.environ  # set by Hugging Face in every Space
SPACE_STORAGE: Final = Path("/data")  # where a Space mounts its storage, if it has any


def default_data_dir() -> Path:
    """The platform's data folder; on a Space the mounted storage, if there is one."""
    if ON_SPACE and os.access(SPACE_STORAGE, os.W_OK):
        return SPACE_STORAGE / "z-image-playground"
    return user_data_path("z-image-playground", appauthor=False)


def _limits(given: Any) -> Any:
    return Limits.parse(given) if isinstance(given, str) else given


class Settings(BaseSettings):
    """Read once in `app.py` and handed down; nothing else looks at the environment.

    The variables of Gradio (GRADIO_SERVER_NAME, GRADIO_SERVER_PORT,
    GRADIO_ROOT_PATH), of fal (FAL_RUN_HOST, FAL_QUEUE_RUN_HOST) and of HTTP
    (SSL_CERT_FILE, HTTPS_PROXY) are read by those libraries themselves.
    """

    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", frozen=True, populate_by_name=True, env_ignore_empty=True
    )

    fal_key: SecretStr | None = Field(
        None, alias="FAL_KEY", description="Key for the hosted endpoint (fal.ai/dashboard/keys)."
    )
    hf_token: SecretStr | None = Field(
        None,
        alias="HF_TOKEN",
        description="Hub token for private and gated adapters, on a private page "
        "(huggingface.co/settings/tokens).",
    )
    hub: str = Field(
        "https://huggingface.co", alias="HF_ENDPOINT", description="The Hub, or a mirror of it."
    )
    backend: Literal["auto", "hosted", "local", "demo"] = Field(
        "auto",
        alias="PLAYGROUND_BACKEND",
        description="Backend chosen at start; auto: hosted with a key, else local with a GPU "
        "and its packages, else demo.",
    )
    local_model: str = Field(
        "Tongyi-MAI/Z-Image-Turbo",
        alias="PLAYGROUND_LOCAL_MODEL",
        description="Model of the local backend: a Hub id or a folder in diffusers' layout.",
    )
    local_device: Literal["auto", "cuda", "cpu"] = Field(
        "auto",
        alias="PLAYGROUND_LOCAL_DEVICE",
        description="Where the local backend runs; auto: a GPU, cpu: minutes an image.",
    )
    local_safety: str = Field(
        "Falconsai/nsfw_image_detection",
        alias="PLAYGROUND_LOCAL_SAFETY",
        description="Image classifier of the local safety checker: a Hub id or a folder.",
    )
    local_unchecked: bool = Field(
        False,
        alias="PLAYGROUND_LOCAL_UNCHECKED",
        description="Run unchecked, and say so, where the safety checker can't be loaded.",
    )
    ray_address: HttpUrl | None = Field(
        None,
        alias="PLAYGROUND_RAY_ADDRESS",
        description="A pool of GPUs as the local backend, http://host:8000: see docs/scaling.md.",
    )
    data_dir: Path = Field(
        default_factory=default_data_dir,
        alias="PLAYGROUND_DATA_DIR",
        description="Folder of the history and its images.",
    )
    database_url: str | None = Field(
        None,
        alias="PLAYGROUND_DATABASE_URL",
        description="postgresql://… for several page processes over one data folder "
        "(docs/scaling.md); empty: SQLite in the data folder.",
    )
    mode: Literal["private", "public"] = Field(
        "public" if ON_SPACE else "private",
        alias="PLAYGROUND_MODE",
        description="public keeps every visitor's history apart (the default on a Space).",
    )
    daily_budget: Decimal = Field(
        Decimal("1.00"),
        alias="PLAYGROUND_DAILY_BUDGET",
        ge=0,
        description="US dollars a day (UTC) that all visitors of a public page together may "
        "spend on FAL_KEY.",
    )
    visitor_limits: Annotated[Limits, NoDecode, BeforeValidator(_limits)] = Field(
        Limits.parse("5/minute, 15/hour, 50/day"),
        alias="PLAYGROUND_VISITOR_LIMITS",
        description="Images that a visitor of a public page may make on FAL_KEY or the local "
        "backend, or none for no limit.",
    )
    allow_mature: bool | None = Field(
        None,
        alias="PLAYGROUND_ALLOW_MATURE",
        description="Whether adapters marked as mature can be searched for; not set: on a "
        "private page only.",
    )
    allow_unchecked: bool | None = Field(
        None,
        alias="PLAYGROUND_ALLOW_UNCHECKED",
        description="Whether the safety checker can be switched off; not set: on a private "
        "page only.",
    )

    owner_token: SecretStr | None = Field(
        None,
        alias="PLAYGROUND_OWNER_TOKEN",
        min_length=16,
        description="Opens /owner, where spend, jobs and failures are seen and spending is "
        "stopped: 16 characters or more. Not set: no such page in public, an open one in private.",
    )
    metrics_port: int | None = Field(
        None,
        alias="PLAYGROUND_METRICS_PORT",
        ge=1,
        le=65535,
        description="Port of the metrics for Prometheus; not set: none.",
    )
    metrics_host: str = Field(
        "127.0.0.1",
        alias="PLAYGROUND_METRICS_HOST",
        description="Address on which the metrics are served, to whoever reaches it.",
    )
    log: Literal["plain", "json"] = Field(
        "plain", alias="PLAYGROUND_LOG", description="Lines on stderr for people, or JSON."
    )
    log_prompts: bool = Field(
        False,
        alias="PLAYGROUND_LOG_PROMPTS",
        description="Log prompts, and the words of unforeseen errors, which may quote them.",
    )

    def terms(self) -> Terms:
        """What visitors may do on the owner's account."""
        private = self.mode == "private"
        unchecked = private if self.allow_unchecked is None else self.allow_unchecked
        mature = private if self.allow_mature is None else self.allow_mature
        if private:
            return Terms(unchecked=unchecked, mature=mature)
        return Terms(self.daily_budget, self.visitor_limits, unchecked, mature)

    oauth_client_id: str | None = Field(
        None,
        alias="OAUTH_CLIENT_ID",
        description="Signing in with Hugging Face on a public page; a Space with `hf_oauth: true` "
        "sets all four.",
    )
    oauth_client_secret: SecretStr | None = Field(
        None, alias="OAUTH_CLIENT_SECRET", description="The secret of that OAuth app."
    )
    oauth_scopes: str = Field(
        "openid profile",
        alias="OAUTH_SCOPES",
        description="What the app may ask for; of it, only gated-repos and read-repos are.",
    )
    openid_provider_url: str = Field(
        "https://huggingface.co", alias="OPENID_PROVIDER_URL", description="Who signs people in."
    )

    @property
    def keeps_history(self) -> bool:
        """Whether history outlives a restart: on a Space's own disk it doesn't.

        A folder that the owner named is taken for one that lasts.
        """
        named = "data_dir" in self.model_fields_set
        return not ON_SPACE or named or self.data_dir.is_relative_to(SPACE_STORAGE)


def read_settings() -> Settings:
    """The settings of this environment; ends the program, in words, where one can't be used."""
    try:
        return Settings()
    except ValidationError as exc:
        wrong = [f"{error['loc'][0]}: {error['msg']}" for error in exc.errors()]
        sys.exit("These settings can't be used:\n" + "\n".join(wrong))


def help_text() -> str:
    """The variables with their defaults, for `python app.py --help`."""
    lines = ["Environment variables (a .env file in this folder works too):", ""]
    for field in Settings.model_fields.values():
        default = field.get_default(call_default_factory=True, validated_data={})
        shown = "not set" if default is None else default
        lines += [f"  {field.alias}", f"      {field.description} [{shown}]"]
    return "\n".join(lines)
