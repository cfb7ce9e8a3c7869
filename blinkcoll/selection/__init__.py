"""Which program to run: the predicted-fastest by size, over blinkcoll's plans and the classic families, with reasons."""

from .budget import default_channels
from .candidates import FAMILIES, Draft, Request
from .choice import Selection, select
from .contest import Candidate, Contest
from .planned import default_plan
from .table import SIZES, Table, table_for

__all__ = ["FAMILIES", "SIZES", "Candidate", "Contest", "Draft", "Request", "Selection", "Table", "default_channels", "default_plan", "select", "table_for"]
