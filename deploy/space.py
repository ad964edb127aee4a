"""Puts the page on a Hugging Face Space: python -m deploy.space OWNER/NAME --kind hosted"""

from __future__ import annotations

import argparse
import getpass
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from huggingface_hub import HfApi, SpaceHardware, get_token

from deploy.folder import write_folder
from deploy.hub import Wanted, publish
from deploy.kinds import KINDS
from generation.errors import HubTokenMissing, PlaygroundError

Ask = Callable[[str], str]


def main(arguments: Sequence[str] | None = None, ask: Ask = getpass.getpass) -> None:
    """The command. `ask` shows a question and reads the answer without showing it."""
    options = _parser().parse_args(arguments)
    try:
        if options.dry_run is not None:
            count = write_folder(KINDS[options.kind], version("gradio"), options.dry_run)
            print(f"{count} files of the {options.kind} kind in {options.dry_run}.")
        else:
            deploy(options, ask)
    except PlaygroundError as exc:
        sys.exit(str(exc))
    except OSError as exc:
        sys.exit(f"The files can't be written: {exc}. Name another folder.")
    except (EOFError, KeyboardInterrupt):
        sys.exit("Stopped. Run the same command again to go on.")


def deploy(options: argparse.Namespace, ask: Ask) -> None:
    """Ask for the secrets, write the files aside, publish them."""
    token, kind = get_token(), KINDS[options.kind]
    if token is None:
        raise HubTokenMissing
    api = HfApi(token=token)
    secrets = _asked((*kind.secrets, *options.secret), ask)
    with tempfile.TemporaryDirectory() as folder:
        count = write_folder(kind, version("gradio"), Path(folder))
        wanted = Wanted(
            space=options.space,
            folder=Path(folder),
            variables=dict(kind.variables) | dict(options.variable),
            secrets=secrets,
            hardware=options.hardware or (kind.suggested_hardware if kind.needs_hardware else None),
            bucket=options.bucket,
            private=options.private,
        )
        publish(api, wanted)
    print(f"{count} files are on {api.endpoint}/spaces/{options.space}; it is building now.")


def _asked(names: Sequence[str], ask: Ask) -> dict[str, str]:
    """The secrets that were given; none changes nothing."""
    answers = {name: ask(f"{name} (Enter: leave as it is): ").strip() for name in names}
    return {name: answer for name, answer in answers.items() if answer}


def _parser() -> argparse.ArgumentParser:
    kinds = "; ".join(f"{kind.name}: {kind.about}" for kind in KINDS.values())
    parser = argparse.ArgumentParser(
        "python -m deploy.space",
        description="Put the page on a Hugging Face Space; a second run brings it up to date.",
    )
    parser.add_argument("space", type=_space, metavar="OWNER/NAME")
    parser.add_argument("--kind", choices=KINDS, default="hosted", help=kinds)
    parser.add_argument("--dry-run", type=Path, metavar="DIR", help="only write the files there")
    parser.add_argument(
        "--secret", action="append", default=[], metavar="NAME", help="ask for this one too"
    )
    parser.add_argument(
        "--variable", action="append", default=[], type=_variable, metavar="NAME=VALUE",
        help="a setting that everybody may read",
    )  # fmt: skip
    parser.add_argument(
        "--hardware", type=_hardware, metavar="NAME",
        help="another than the kind's, such as zero-a10g; paid ones sleep after 30 minutes",
    )  # fmt: skip
    parser.add_argument(
        "--bucket", metavar="OWNER/NAME", help="a storage bucket that keeps the history"
    )
    parser.add_argument("--private", action="store_true", help="a new Space only you can see")
    return parser


def _space(text: str) -> str:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is no OWNER/NAME, such as jane/playground")
    return text


def _hardware(text: str) -> SpaceHardware:
    try:
        return SpaceHardware(text)
    except ValueError:
        names = ", ".join(hardware.value for hardware in SpaceHardware)
        raise argparse.ArgumentTypeError(f"{text!r} is none of {names}") from None


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=VALUE")
    return name, value


if __name__ == "__main__":
    main()
