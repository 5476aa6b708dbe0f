"""Plans: compiled networks in the user's cache folder, built once, verified at every load."""

from __future__ import annotations

from streamsr.plans.building import BUILD_LIMIT_S, BuildProgress
from streamsr.plans.cache import FOLDER_VARIABLE, Plan, PlanCache, PlanEntry, cache_folder
from streamsr.plans.key import PlanKey
from streamsr.plans.telling import telling_builds

__all__ = [
    "BUILD_LIMIT_S",
    "FOLDER_VARIABLE",
    "BuildProgress",
    "Plan",
    "PlanCache",
    "PlanEntry",
    "PlanKey",
    "cache_folder",
    "telling_builds",
]
