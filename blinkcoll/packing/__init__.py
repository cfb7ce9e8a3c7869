"""Bounds with certificates, and plans that meet them: packed trees and flows with exact rates."""

from .make import make_plan
from .plan import Certificate, Flow, Partition, Plan, Tree

__all__ = ["Certificate", "Flow", "Partition", "Plan", "Tree", "make_plan"]
