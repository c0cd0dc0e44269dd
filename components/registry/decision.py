"""The gate's decision on a challenger, apart from the rule, which needs the libraries that measures are made with."""

from pydantic import Field

from components.strict import Strict


class Comparison(Strict):
    """One measure of the challenger against the same measure of the reference, over the same photos."""

    metric: str
    challenger: float = Field(description="Mean over photos.")
    reference: float = Field(description="Mean over photos.")
    change: float = Field(description="challenger - reference.")
    low: float = Field(description="Lower end of the interval of the change.")
    high: float = Field(description="Upper end of the interval of the change.")
    tolerance: float
    within: bool = Field(description="high <= tolerance, or low >= -tolerance where higher is better.")


class Decision(Strict):
    """What the gate decided and why."""

    promoted: bool
    reference: str = Field(description="What the challenger was compared with, in words.")
    photos: int
    comparisons: tuple[Comparison, ...]
    reasons: tuple[str, ...] = Field(description="One sentence for each rule, the broken ones first.")
