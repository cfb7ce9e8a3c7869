"""Bounds with certificates, and plans that meet them: packed trees and flows with exact rates."""

from .front import pareto
from .make import make_plan
from .plan import Certificate, Flow, Partition, Plan, Stage, Tree
from .treeplan import hybrid_candidates

__all__ = ["Certificate", "Flow", "Partition", "Plan", "Stage", "Tree", "hybrid_candidates", "make_plan", "pareto"]
