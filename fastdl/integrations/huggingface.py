"""Where a file of the Hugging Face Hub is, for who fetches it by other means: ``resolve``.

Whoever uses fastdl itself needs nothing of this: ``hf://`` URLs go wherever others do,
``fastdl hf://org/model/model.safetensors``.
"""

from __future__ import annotations

from fastdl.sources.huggingface import locate


def resolve(url: str) -> tuple[str, dict[str, str]]:
    """Return the https URL of ``hf://[datasets/]ORG/NAME[@REVISION]/PATH`` and the headers that it wants.

    The headers hold the token that ``huggingface_hub`` finds, if there is one: send them to this very URL, and not
    where it redirects. Nothing is sent.

    Raises:
        UsageError: it is no such URL, or ``huggingface_hub`` is not installed.
    """
    return locate(url)
