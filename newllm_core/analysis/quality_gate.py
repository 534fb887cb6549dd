"""The quality gate before Phase 2.

It lets no heads be trained for contexts that `analyze` calls degenerate. There is no way around it
but to set its thresholds, or to ask for untrained blocks by name; the checkpoint records both.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from newllm_core.analysis.criteria import CRITERIA, DEGENERATE, TRAINING, Figures, Verdict, verdicts
from newllm_core.analysis.health import training_of
from newllm_core.analysis.rank import effective_rank_ceiling
from newllm_core.checkpoint.format import Checkpoint
from newllm_core.checkpoint.metadata import SPLITS
from newllm_core.config import Config
from newllm_core.errors import GateRefused

# What untrained blocks are allowed, where they are asked for: not to be trained.
WAIVED = (TRAINING, "cvfp")


def gate_failures(
    health: Mapping[str, Figures], training: Figures, config: Config
) -> list[Verdict]:
    """Return what the gate refuses; health and training are those of `verdicts`.

    Untrained blocks, where they were asked for, count only where no weight of them moved.
    """
    asked_for = config.phase2.untrained_blocks
    waived = WAIVED if asked_for and training["weight_change"] == 0 else ()
    judged = verdicts(health, training, config)
    return [v for v in judged if v["status"] == DEGENERATE and v["section"] not in waived]


def check_gate(health: Mapping[str, Figures], training: Figures, config: Config) -> None:
    """Let contexts pass that are not degenerate, see `gate_failures`.

    Raises:
        GateRefused: one line with what failed, by which thresholds, and what to try.
    """
    if failed := gate_failures(health, training, config):
        raise GateRefused(f"gate refused: {_said(failed, health, config)}")


def phase1_verdict(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return whether Phase 1 `succeeded`: the gate lets it pass. If not there is a `reason`."""
    config = checkpoint.config
    health = {split: checkpoint.gate[split] for split in SPLITS}
    training = training_of(checkpoint)
    failed = gate_failures(health, training, config)
    reason = _said(failed, health, config) if failed else None
    judged = verdicts(health, training, config)
    return {"succeeded": not failed, "reason": reason, "verdicts": judged}


def _said(failed: list[Verdict], health: Mapping[str, Figures], config: Config) -> str:
    """Return in one line what failed and what to try."""
    sections = dict.fromkeys(verdict["section"] for verdict in failed)
    parts = [_failure([v for v in failed if v["section"] == section]) for section in sections]
    hints = [_hint(verdict, failed, health, config) for verdict in failed]
    return f"{'; '.join(parts)}. Try {', or '.join(dict.fromkeys(filter(None, hints)))}"


def _failure(failed: Sequence[Verdict]) -> str:
    """Say what is wrong with one section, on the splits where it is."""
    section = failed[0]["section"]
    if section == TRAINING:
        return str(failed[0]["message"])
    criterion, side = CRITERIA[section], "below" if CRITERIA[section].high_is_good else "above"
    parts = []
    for verdict in failed:
        split, value = verdict["split"], verdict["value"]
        shown = "no number" if value is None else f"{value:.3g}"
        limit = f"{side} gate.{criterion.gate_option(split)} {verdict['threshold']:g}"
        parts.append((f"{split} {shown}", limit))
    found = ", ".join(f"{where} {limit}" for where, limit in parts)
    if len({limit for _, limit in parts}) == 1:
        found = f"{', '.join(where for where, _ in parts)}, {parts[0][1]}"
    return f"{failed[0]['message'].partition(':')[0]} ({criterion.measure} {found})"


def _hint(
    verdict: Verdict, failed: list[Verdict], health: Mapping[str, Figures], config: Config
) -> str | None:
    """Return what to try against one failure; None where another failure explains it."""
    section, split = verdict["section"], verdict["split"]
    others = {other["section"] for other in failed if other["split"] == split}
    std, weight = config.model.init_std, config.phase1.dist_reg_weight or 0.0
    mix = config.cell.get("layernorm_mix")
    normed = mix is None or mix == 1
    cause = next((found for found in (TRAINING, "explosion") if found in others), section)
    if section != cause:
        return None
    if section == TRAINING:
        again = f"phase1 with --max-iterations {max(4, config.phase1.max_iterations)}"
        return f"{again} (phase2 --untrained-blocks begins with untrained blocks on purpose)"
    if section == "explosion":
        smaller = "a smaller --init-std" if normed else "--set cell.layernorm_mix=1"
        return f"phase1 with {smaller}"
    smaller, larger = f"--init-std {std / 3:.2g}", f"--init-std {max(3 * std, 0.03):.2g}"
    more = f"--max-iterations {config.phase1.max_iterations * 2 or 4}"
    copies = {"identity_mapping", "token_dependency"} & others
    if section in ("dynamics", "convergence", "cvfp"):
        return None if copies else f"phase1 with {smaller}, {more}"
    if section in ("identity_mapping", "token_dependency", "memory"):
        told = config.phase1.objective == "reconstruction"
        change = more if told else f"--objective reconstruction, {more}"
        return f"phase1 with {larger if std < 0.05 else change}"
    if section == "zero_solution" and not normed:
        return "phase1 with --set cell.layernorm_mix=1"
    figures = health[split]
    if section == "information_content":
        ceiling = effective_rank_ceiling(figures["num_tokens"], figures["context_dim"])
        if ceiling < verdict["threshold"]:
            return "more text (so few tokens cannot reach that rank)"
    if copies:
        return None
    if config.phase1.reg == "none" or not weight:
        return "phase1 with --reg covariance-ema"
    if weight > 0.9:
        return f"phase1 with a smaller --dist-reg-weight than {weight:g}"
    return f"phase1 with a larger --dist-reg-weight than {weight:g}, {more}"
