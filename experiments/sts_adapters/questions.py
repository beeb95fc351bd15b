"""Which differences the study asks for; those of `claim` were named before anything was run."""

from __future__ import annotations

from typing import Any

from answers import THERE, Answers, Key

from umdseg.evaluation.paired import holm

SINGLES = ("ct", "pet", "mr")
PAIRS = ("ct+pet", "pet+mr", "ct+mr")
ALL = "ct+pet+mr"
THRESHOLD = "PET above 30 % of its maximum"


def asked(answers: Answers) -> dict[str, list[dict[str, Any]]]:
    """Role -> differences; p of the claims is adjusted after Holm."""
    whole = (f"LoRA {ALL}", THERE)
    claims: list[tuple[Key, Key]] = [(whole, (f"LoRA {m}", m)) for m in SINGLES]
    claims.append((whole, (THRESHOLD, "pet")))
    families = {
        "claim": claims,
        "pair against its parts": [
            ((f"LoRA {pair}", pair), (f"LoRA {m}", m)) for pair in PAIRS for m in pair.split("+")
        ],
        "three against two": [((f"LoRA {ALL}", ALL), (f"LoRA {pair}", pair)) for pair in PAIRS],
        "against the threshold": [
            ((f"LoRA {given}", given), (THRESHOLD, "pet")) for given in (*SINGLES, *PAIRS)
        ],
        "against the cut alone": [
            (key, (name, name_given))
            for key in (*((f"LoRA {m}", m) for m in SINGLES), whole)
            for name, name_given in answers.scores
            if name.startswith("blind")
        ],
        "left out at test": [
            ((f"LoRA {trained}", m), (f"LoRA {m}", m))
            for trained in (*PAIRS, ALL)
            for m in trained.split("+")
        ],
        "the same, nothing left out in training": [
            (("LoRA ct+pet, nothing left out", m), (f"LoRA {m}", m)) for m in ("ct", "pet")
        ],
        "afterwards, twice the steps": [
            ((f"LoRA {ALL}, 600 steps", THERE), second)
            for second in (("LoRA pet, 600 steps", "pet"), ("LoRA pet", "pet"), whole)
        ],
        "against U-Nets": [
            (key, (name, key[1]))
            for name in answers.names("U-Net")
            for key in (whole, (f"LoRA {ALL}", "pet"))
        ],
    }
    found = {role: [answers.difference(*pair) for pair in pairs] for role, pairs in families.items()}
    told = {role: [one for one in family if one is not None] for role, family in found.items()}
    adjusted = holm([one["p"] for one in told["claim"]])
    told["claim"] = [{**one, "p": p, "holm": True} for one, p in zip(told["claim"], adjusted, strict=True)]
    return told
