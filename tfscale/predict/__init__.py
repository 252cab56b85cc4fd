"""Prediction of the memory, time, energy and price of the stages of a plan, on this machine or on devices that
conf/device lists."""

from tfscale.predict.cost import Prediction, predict
from tfscale.predict.families import Family, families
from tfscale.predict.machine import Machine, planned_machine
from tfscale.predict.preflight import cheapest_fix, files_amiss, preflight, remarks, shortage

__all__ = ["Family", "Machine", "Prediction", "cheapest_fix", "families", "files_amiss", "planned_machine", "predict",
           "preflight", "remarks", "shortage"]  # fmt: skip
