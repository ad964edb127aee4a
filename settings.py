"""Every environment variable that the playground reads, once. A `.env` file works too."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Literal

from platformdirs import user_data_path
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

VERSION: Final = "0.1.0"
ON_SPACE: Final = "SPACE_ID" in os.environ  # set by Hugging Face in every Space
SPACE_STORAGE: Final = Path("/data")  # where a Space mounts its storage, if it has any


def default_data_dir() -> Path:
    """The platform's data folder; on a Space the mounted storage, if there is one."""
    if ON_SPACE and os.access(SPACE_STORAGE, os.W_OK):
        return SPACE_STORAGE / "z-image-playground"
    return user_data_path("z-image-playground", appauthor=False)


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

    @property
    def keeps_history(self) -> bool:
        """Whether history outlives a restart: on a Space's own disk it doesn't.

        A folder that the owner named is taken for one that lasts.
        """
        named = "data_dir" in self.model_fields_set
        return not ON_SPACE or named or self.data_dir.is_relative_to(SPACE_STORAGE)


def help_text() -> str:
    """The variables with their defaults, for `python app.py --help`."""
    lines = ["Environment variables (a .env file in this folder works too):", ""]
    for field in Settings.model_fields.values():
        default = field.get_default(call_default_factory=True, validated_data={})
        shown = "not set" if default is None else default
        lines += [f"  {field.alias}", f"      {field.description} [{shown}]"]
    return "\n".join(lines)
