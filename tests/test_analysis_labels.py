"""Labels beside points."""

from itertools import combinations

from tfscale.analysis.labels import PLACES, Label, _box, place


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])


def test_a_label_alone_has_the_first_place() -> None:
    assert place([Label("70K", (50, 50))], [(50, 50)], 7) == [PLACES[0]]


def test_labels_of_points_side_by_side_cover_neither_each_other_nor_the_points() -> None:
    points = [(50.0, 50.0), (58.0, 50.0), (54.0, 58.0), (66.0, 46.0)]
    labels = [Label(text, at) for text, at in zip(("25K", "70K", "147K", "254K"), points, strict=True)]
    boxes = [_box(label, placed, 7) for label, placed in zip(labels, place(labels, points, 7), strict=True)]
    assert not [pair for pair in combinations(boxes, 2) if overlap(*pair)]
    for x, y in points:
        assert not [box for box in boxes if overlap(box, (x - 3, y - 3, x + 3, y + 3))]
