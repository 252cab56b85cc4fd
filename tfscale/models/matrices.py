"""Description of the two-dimensional weights of a block as linear maps."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Matrix:
    """Description of a weight of a block. The weight applies one or more linear maps of the same fan-in and fan-out."""

    fan_in: int
    """Number of inputs of each linear map, which is the number of terms in the sum for an output."""
    fan_out: int
    """Number of outputs of each linear map."""
    maps: int = 1
    """Number of linear maps that the weight stacks along its rows, such as 3 for fused queries, keys and values."""
    inputs_are_rows: bool = False
    """True if the weight is stored as [fan_in, fan_out], as the values of a Pattention are."""
    groups: tuple[int, ...] = ()
    """Number of rows in each group of parameter tokens, or an empty tuple for a weight without parameter tokens."""

    @property
    def size(self) -> int:
        """Number of values in the weight."""
        return self.maps * self.fan_in * self.fan_out

    @property
    def rows_of_a_map(self) -> int:
        """Number of rows of the weight that belong to one linear map."""
        return self.fan_in if self.inputs_are_rows else self.fan_out


def is_block_matrix(name: str, dimensions: int) -> bool:
    """Return True if the weight with this name and number of dimensions is a matrix of a block, and False for the
    embedding, gains and biases."""
    return dimensions == 2 and name.startswith("blocks.")
