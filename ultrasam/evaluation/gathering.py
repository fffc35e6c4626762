"""What the metrics of all tasks share: records of all processes, scored once, the same answer everywhere."""

from __future__ import annotations

from typing import Any

from mmengine.dist import all_gather_object, broadcast_object_list, is_main_process
from mmengine.evaluator import BaseMetric

from ultrasam.errors import UltraSamError


class GatheringMetric(BaseMetric):
    """A metric over distinct records of all processes, whose numbers are the same on every process.

    MMEngine cuts the gathered results to the size of the data set, which only drops repeated samples when each process
    has seen every n-th image, one result an image. Here ``compute_metrics`` gets all records, repeated ones included,
    and tells them apart by identity. Subclasses set ``default_prefix``.
    """

    results: list[Any]

    def evaluate(self, size: int) -> dict[str, float]:
        """Compute the scores of everything that was processed, on all processes together.

        Args:
            size: Number of images; not used.

        Returns:
            Name -> value, the same on every process.

        Raises:
            UltraSamError: Raised on every process, so that none is left waiting.
        """
        gathered = all_gather_object(self.results)
        self.results = []
        answer: list[Any] = [None]
        if is_main_process():
            try:
                scores = self.compute_metrics([record for part in gathered for record in part])
                answer = [{f"{self.prefix}/{name}": value for name, value in scores.items()}]
            except UltraSamError as error:
                answer = [error]
        broadcast_object_list(answer)
        if isinstance(answer[0], UltraSamError):
            raise answer[0]
        return answer[0]
