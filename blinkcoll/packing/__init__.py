"""Bounds with certificates, and plans that meet them: packed trees and flows with exact rates."""

from .make import make_plan
from .plan import Certificate, Flow, Plan, Tree
from .treeplan import hybrid_candidates

__all__ = ["Certificate", "Flow", "Plan", "Tree", "hybrid_candidates", "make_plan"]
