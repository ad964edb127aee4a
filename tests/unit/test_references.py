"""What a person may paste as an adapter, and why the rest is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generation.errors import ReferenceInvalid
from lora_registry.references import (
    HubReference,
    UploadReference,
    UrlReference,
    is_weight_file,
    parse_reference,
)

SHA = "0123456789abcdef0123456789abcdef01234567"
HASH = "ab" * 32
MIRROR = "http://127.0.0.1:8765"
FILE = "x.safetensors"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("owner/name", HubReference("owner/name")),
        ("  owner/name\n", HubReference("owner/name")),
        ('"owner/name"', HubReference("owner/name")),
        ("owner/name/", HubReference("owner/name")),
        ("o-w.n_er/Na.m-e_2", HubReference("o-w.n_er/Na.m-e_2")),
        ("owner/name/x.safetensors", HubReference("owner/name", FILE)),
        ("owner/name/a b/深.SafeTensors", HubReference("owner/name", "a b/深.SafeTensors")),
        (f"owner/name/resolve/{SHA}/{FILE}", HubReference("owner/name", FILE, SHA)),
        ("huggingface.co/owner/name", HubReference("owner/name")),
        ("hf.co/owner/name/blob/main/x.safetensors", HubReference("owner/name", FILE, "main")),
        ("https://huggingface.co/owner/name", HubReference("owner/name")),
        ("https://www.huggingface.co/owner/name/", HubReference("owner/name")),
        ("HTTPS://HuggingFace.co/owner/name", HubReference("owner/name")),
        ("https://huggingface.co:443/owner/name", HubReference("owner/name")),
        ("https://hf.co/owner/name?not-for-all-audiences=true#card", HubReference("owner/name")),
        ("https://huggingface.co/owner/name/tree/main", HubReference("owner/name", None, "main")),
        ("https://huggingface.co/owner/name/tree/dev/sub", HubReference("owner/name", None, "dev")),
        (f"https://huggingface.co/owner/name/commit/{SHA}", HubReference("owner/name", None, SHA)),
        ("https://huggingface.co/owner/name/discussions/3", HubReference("owner/name")),
        (
            "https://huggingface.co/owner/name/tree/main?show_file_info=x.safetensors",
            HubReference("owner/name", FILE, "main"),
        ),
        (
            "https://huggingface.co/owner/name/blob/main/x.safetensors",
            HubReference("owner/name", FILE, "main"),
        ),
        (
            f"https://huggingface.co/owner/name/resolve/{SHA}/a%20b/%E6%B7%B1.safetensors?download=true",
            HubReference("owner/name", "a b/深.safetensors", SHA),
        ),
        (
            "https://huggingface.co/owner/name/resolve/refs%2Fpr%2F1/x.safetensors",
            HubReference("owner/name", FILE, "refs/pr/1"),
        ),
        (
            "https://huggingface.co/owner/name/blob/refs/pr/1/x.safetensors",
            HubReference("owner/name", FILE, "refs/pr/1"),
        ),
        (f"{MIRROR}/owner/name/blob/main/x.safetensors", HubReference("owner/name", FILE, "main")),
        ("https://example.com/a/x.safetensors", UrlReference("https://example.com/a/x.safetensors")),
        (
            "https://example.com:8443/x.safetensors?sig=a%2Fb#here",
            UrlReference("https://example.com:8443/x.safetensors?sig=a%2Fb"),
        ),
        ("https://example.com/api/download/12345", UrlReference("https://example.com/api/download/12345")),
        ("https://huggingface.co.evil.example/a/x.safetensors",
         UrlReference("https://huggingface.co.evil.example/a/x.safetensors")),
        (f"upload:{HASH}", UploadReference(HASH)),
    ],
)  # fmt: skip
def test_a_reference_is_understood(typed: str, meant: object) -> None:
    assert parse_reference(typed, MIRROR) == meant


@pytest.mark.parametrize(
    ("typed", "problem"),
    [
        ("", "is empty"),
        ("   ", "is empty"),
        ("name", "no owner/name"),
        ("owner/", "no owner/name"),
        ("owner/na me", "no owner/name"),
        ("owner/na--me", "no owner/name"),
        ("owner/-name", "no owner/name"),
        ("../etc/passwd", "a path on a computer"),
        ("/home/me/x.safetensors", "a path on a computer"),
        ("~/x.safetensors", "a path on a computer"),
        ("a\\b\\x.safetensors", "a path on a computer"),
        ("owner/name/../../x.safetensors", "inside the repository"),
        ("owner/name/./x.safetensors", "inside the repository"),
        ("owner/name/a//x.safetensors", "inside the repository"),
        ("owner/../name", "no owner/name"),
        ("C:\\x.safetensors", "starts with C:"),
        ("file:///etc/passwd", "starts with file:"),
        ("FILE://x/y.safetensors", "starts with FILE:"),
        ("javascript:alert(1)", "starts with javascript:"),
        ("data:text/plain,x.safetensors", "starts with data:"),
        ("ftp://example.com/x.safetensors", "starts with ftp:"),
        ("http://example.com/x.safetensors", "starts with http:"),
        ("http://huggingface.co/owner/name", "starts with http:"),
        ("https://user:pass@example.com/x.safetensors", "user name or a password"),
        ("https://user@huggingface.co/owner/name", "user name or a password"),
        ("https://example.com\\@evil.example/x.safetensors", "user name or a password"),
        ("https:///x.safetensors", "can't be read as an address"),
        ("https://[::1/x.safetensors", "can't be read as an address"),
        ("https://example.com:99999/x.safetensors", "can't be read as an address"),
        ("https://example.com", "names no file"),
        ("https://example.com/a/", "names no file"),
        ("https://example.com/x.ckpt", "may run code"),
        ("https://example.com/x.PT?a=b", "may run code"),
        ("https://example.com/x.zip", "names no .safetensors file"),
        ("owner/name/x.bin", "may run code"),
        ("owner/name/x.pth", "may run code"),
        ("owner/name/README.md", "names no .safetensors file"),
        ("https://huggingface.co/owner/name/blob/main/model.pkl", "may run code"),
        ("https://huggingface.co/owner/name/resolve/main/..%2f..%2fx.safetensors", "inside"),
        ("https://huggingface.co/owner/name/resolve/main/a%00.safetensors", "control characters"),
        ("https://huggingface.co/owner/name/resolve/%2e%2e/x.safetensors", "inside"),
        ("https://huggingface.co/datasets/owner/name", "datasets, not to a model"),
        ("https://huggingface.co/spaces/owner/name", "spaces, not to a model"),
        ("https://huggingface.co/owner", "no owner/name"),
        ("https://huggingface.co/", "no owner/name"),
        ("datasets/owner/name", "datasets, not to a model"),
        ("owner/na\x00me", "control characters"),
        ("owner/name\u202egpj.safetensors", "control characters"),
        ("owner/\ud800", "control characters"),
        ("upload:1234", "SHA-256"),
        (f"upload:../{HASH}", "SHA-256"),
        (f"upload:{HASH.upper()}", "SHA-256"),
        ("a/" + "b" * 3000, "longer than"),
    ],
)
def test_anything_else_is_refused_with_the_reason(typed: str, problem: str) -> None:
    with pytest.raises(ReferenceInvalid) as caught:
        parse_reference(typed, MIRROR)
    assert problem in caught.value.cause
    assert caught.value.cause.isprintable()
    assert len(caught.value.cause) < 300


def test_a_mirror_below_a_path_is_a_hub_too() -> None:
    hub = "https://mirror.example/hf/"
    pasted = "https://mirror.example/hf/owner/name/blob/main/x.safetensors"
    assert parse_reference(pasted, hub) == HubReference("owner/name", FILE, "main")


def test_only_a_whole_commit_pins() -> None:
    assert HubReference("a/b", FILE, SHA).pinned
    assert not any(
        HubReference("a/b", FILE, r).pinned for r in (None, "main", SHA[:7], SHA.upper())
    )


@given(st.text(max_size=80) | st.text(alphabet="owner/.:%@\\ http s-x", max_size=60))
def test_nothing_typed_raises_anything_else(typed: str) -> None:
    try:
        reference = parse_reference(typed, MIRROR)
    except ReferenceInvalid:
        return
    match reference:
        case HubReference():
            assert reference.repo.count("/") == 1 and ".." not in reference.repo
            assert reference.file is None or is_weight_file(reference.file)
        case UrlReference():
            assert reference.url.lower().startswith("https://") and "@" not in reference.url[8:20]


@given(st.from_regex(r"(https://|hf\.co/|/|\.\./|%2e%2e/|a/b/){0,4}[a-z./%]{0,12}", fullmatch=True))
def test_no_combination_leaves_the_repository(typed: str) -> None:
    try:
        reference = parse_reference(typed)
    except ReferenceInvalid:
        return
    if isinstance(reference, HubReference) and reference.file:
        assert not {"", ".", ".."} & set(reference.file.split("/"))
