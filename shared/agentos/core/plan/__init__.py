"""Plans: the items of a task and what each depends on, from a file, a model, or the stand-in planner.

A plan is checked as a whole and refused as a whole, before a single item is created.
"""

from agentos.core.plan.file import load_plan, parse_plan
from agentos.core.plan.model import Plan, PlanItem, to_items
from agentos.core.plan.planner import parse_model_plan, planning_prompt
from agentos.core.plan.schema import PLAN_SCHEMA
from agentos.core.plan.stand_in import stand_in_plan, stand_in_plan_json

__all__ = [
    "PLAN_SCHEMA",
    "Plan",
    "PlanItem",
    "load_plan",
    "parse_model_plan",
    "parse_plan",
    "planning_prompt",
    "stand_in_plan",
    "stand_in_plan_json",
    "to_items",
]
