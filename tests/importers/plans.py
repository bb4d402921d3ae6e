"""What an import would publish and what it skips."""

from __future__ import annotations

from kt_es.importers.accounts import ImportPlan


def labels(plan: ImportPlan) -> list[str]:
    return [account.label for account in plan.accounts]


def reasons(plan: ImportPlan) -> list[tuple[str, str]]:
    return [(skipped.shown, skipped.reason) for skipped in plan.skipped]
