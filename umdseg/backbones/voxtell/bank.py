"""Texts whose embeddings the authors publish, and the structures they mean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from umdseg import anatomy
from umdseg.errors import UserError, nearest
from umdseg.vocabulary import Prompt


class Bank:
    """Embeddings of texts by Qwen3-Embedding-4B, made once by the authors.

    Args:
        vectors: text in lower case -> (D,) embedding.
        where: file, for messages.

    Attributes:
        names: structure -> the text asked for it: its name with spaces, else the first text that is another
            spelling of it ("left kidney" for `kidney_left`).
    """

    def __init__(self, vectors: Mapping[str, NDArray[np.floating]], where: Path) -> None:
        self._vectors, self._where = vectors, where
        self.names: dict[str, str] = {}
        for text in vectors:
            structure = anatomy.find(text)
            if structure is not None and (structure not in self.names or text == _words(structure)):
                self.names[structure] = text
        self.rows = {text: row for row, text in enumerate(vectors)}

    def text(self, prompt: Prompt) -> str:
        """The text of the bank that a prompt asks for.

        Raises:
            UserError: the bank does not have it (with the nearest text).
        """
        wanted = " ".join((prompt.text or _words(prompt.structure)).lower().split())
        if wanted in self._vectors:
            return wanted
        meant = self.names.get(anatomy.find(wanted) or "")
        if meant is None:
            raise UserError(
                f"there is no embedding of the text '{wanted}'",
                where=self._where,
                expected=f"one of the bank's {len(self._vectors)} texts",
                nearest=nearest(wanted, self._vectors),
            )
        return meant

    def embeddings(self, texts: list[str]) -> torch.Tensor:
        """(N, D) float32."""
        return torch.from_numpy(np.stack([self._vectors[text] for text in texts]).astype(np.float32))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Text -> embedding, to tell banks apart: answers depend on them as on weights."""
        return {f"text {text}": torch.from_numpy(vector) for text, vector in self._vectors.items()}


def read_bank(path: Path, size: int) -> Bank:
    """Read a `.npz` of `labels` and `embeddings` as the authors publish it (never pickled objects).

    Args:
        path: the file.
        size: numbers per embedding.

    Raises:
        UserError: missing, damaged, or of another text encoder.
    """
    from voxtell.utils.embedding_bank import load_embedding_bank

    try:
        vectors = load_embedding_bank(str(path))
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UserError(
            f"not a readable embedding bank: {error}", where=path, expected="an .npz of labels and embeddings"
        ) from error
    if not vectors or any(vector.shape != (size,) for vector in vectors.values()):
        shape = next(iter(vectors.values())).shape if vectors else "nothing"
        raise UserError(
            f"the embedding bank holds {shape} per text", where=path, expected=f"{size} numbers per text"
        )
    return Bank(vectors, path)


def _words(structure: str) -> str:
    return structure.replace("_", " ").lower()
