"""What a plan will cost, before it is spent: memory, time, energy and money of every stage, on this machine or on
devices that conf/device describes."""

from tfscale.predict.cost import Prediction, predict
from tfscale.predict.families import Family, families
from tfscale.predict.layout import Layout, layout, mend
from tfscale.predict.machine import Machine, planned_machine
from tfscale.predict.preflight import files_amiss, preflight, remarks, shortage

__all__ = ["Family", "Layout", "Machine", "Prediction", "families", "files_amiss", "layout", "mend", "planned_machine",
           "predict", "preflight", "remarks", "shortage"]  # fmt: skip
