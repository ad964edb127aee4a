"""A request as code that makes the same image: Python, JavaScript, cURL, JSON."""

from __future__ import annotations

import json
import pprint
import shlex
from collections.abc import Callable
from typing import Final

from generation.request import ENDPOINT, GenerationRequest

JS_EXACT: Final = 2**53 - 1


def as_json(request: GenerationRequest) -> str:
    """The body that the endpoint is sent."""
    return json.dumps(request.payload(), indent=2, ensure_ascii=False)


def as_python(request: GenerationRequest) -> str:
    """For the `fal-client` package; the key comes from FAL_KEY."""
    arguments = pprint.pformat(request.payload(), sort_dicts=False, width=88)
    return (
        "import fal_client\n\n"
        f"arguments = {arguments}\n\n"
        f'result = fal_client.subscribe("{ENDPOINT}", arguments=arguments)\n'
        'for image in result["images"]:\n'
        '    print(image["url"])\n'
    )


def as_javascript(request: GenerationRequest) -> str:
    """For the `@fal-ai/client` package, as a module."""
    # JSON is JavaScript but for two line separators that end strings in old engines.
    body = as_json(request).replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    too_large = request.seed is not None and request.seed > JS_EXACT
    note = "// JavaScript rounds this seed: use Python or cURL for the same image.\n"
    return (
        'import { fal } from "@fal-ai/client";\n\n'
        f"{note if too_large else ''}"
        f"const input = {body};\n\n"
        f'const result = await fal.subscribe("{ENDPOINT}", {{ input }});\n'
        "for (const image of result.data.images) console.log(image.url);\n"
    )


def as_curl(request: GenerationRequest) -> str:
    """For a shell; submits to the queue and prints the addresses to ask next."""
    body = json.dumps(request.payload(), ensure_ascii=False)
    return (
        f"curl --request POST https://queue.fal.run/{ENDPOINT} \\\n"
        '  --header "Authorization: Key $FAL_KEY" \\\n'
        '  --header "Content-Type: application/json" \\\n'
        f"  --data {shlex.quote(body)}\n"
    )


SNIPPETS: Final[dict[str, Callable[[GenerationRequest], str]]] = {
    "Python": as_python,
    "JavaScript": as_javascript,
    "cURL": as_curl,
    "JSON": as_json,
}
